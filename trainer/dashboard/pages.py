"""What Streamlit runs for each viewer: the pages, and the way between them."""

import streamlit as st

from trainer.dashboard import explore, live, models, try_flow
from trainer.dashboard.addresses import PAGE

_SHIELD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><path fill="#2a6f97" d="M12 1 3 5v6c0 5.6 3.8 10.7 9 12 5.2-1.3 '
    '9-6.4 9-12V5z"/><path fill="none" stroke="#fff" stroke-width="2" d="M6 12h3l2-5 2 10 2-5h3"/></svg>'
)


def main() -> None:
    """Draw the chosen page."""
    st.set_page_config(page_title="Flowsentry", page_icon=_SHIELD, layout="wide")
    pages = {
        "live": st.Page(live.page, title="Live", icon=":material/monitoring:", default=True),
        "explore": st.Page(explore.page, title="Explore", icon=":material/bar_chart:", url_path="explore"),
        "models": st.Page(models.page, title="Models", icon=":material/balance:", url_path="models"),
        "try": st.Page(try_flow.page, title="Try", icon=":material/tune:", url_path="try"),
    }
    chosen = st.navigation(list(pages.values()))
    if (wanted := st.query_params.get(PAGE)) in pages:
        st.switch_page(pages[wanted])
    chosen.run()


main()
