"""The dashboard: pages in a browser for analysts and data scientists. `python -m trainer dashboard` starts it.

A page is a file with one function that draws it (`live`, `explore`, `models`, `try_flow`); what it shows is worked out by modules
beside it that know nothing of Streamlit.
"""
