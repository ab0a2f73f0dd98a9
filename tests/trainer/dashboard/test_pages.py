"""Every page in a real browser, dark and light: without an error in the console, and it does what it is for."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from playwright.sync_api import Locator, Page, expect

from schemas.alert import FlowRef
from schemas.params import StreamParams
from tests.bundles import make_bundle
from tests.flows import flows
from tests.kafka import produce
from tests.stream.alerts import alert
from tests.trainer.dashboard.browser import chromium, running, viewing
from tests.trainer.dashboard.test_service import worker
from trainer.evaluation.evaluate import evaluate

PATIENCE_MS = 60_000
THEMES = pytest.mark.parametrize("theme", ["dark", "light"])


@dataclass(frozen=True, slots=True)
class Work:
    """What the dashboard of these tests shows."""

    url: str
    folder: Path
    servers: str
    topic: str


@pytest.fixture(scope="module")
def work(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    chromium()
    folder = tmp_path_factory.mktemp("dashboard")
    first = make_bundle(folder / "first", "unsw-nb15", novelty=True)
    other = make_bundle(folder / "other", "unsw-nb15", gain=0.5, name="other")
    labelled = flows("unsw-partition", rows=300, seed=8).write(folder / "labelled.csv.gz")
    unlabelled = flows("unsw-partition", rows=20, seed=9)
    unlabelled.drop("label")
    unlabelled.drop("attack_cat")
    unlabelled.write(folder / "unlabelled.csv")
    evaluate(first, [labelled], folder / "reports" / "first", StreamParams())
    topic = f"alerts-{folder.name}"
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(15)
    with (
        worker(per_look=40) as metrics,
        running(
            "--bundle", str(first), str(other), "--data", str(labelled), str(folder / "unlabelled.csv"),
            "--reports", str(folder / "reports"), "--bootstrap-servers", bootstrap_servers, "--alerts", topic,
            "--metrics-url", metrics, folder=folder,
        ) as url,
    ):  # fmt: skip
        yield Work(url, folder, bootstrap_servers, topic)
    admin.delete_topics([topic])[topic].result(15)


def produce_now(servers: str, topic: str, *numbers: int) -> None:
    now = datetime.now(UTC)
    hostile = FlowRef(src_ip="**10.0.0.1**", src_port=80, dst_ip="![x](//192.0.2.1/x.png)", dst_port=443)
    produce(
        servers, topic,
        [alert(number, detection_time=now, family="<b>DDoS</b>", flow=hostile).model_dump_json().encode() for number in numbers],
    )  # fmt: skip


@THEMES
@pytest.mark.parametrize("name", ["live", "explore", "models", "try"])
def test_a_page_opens_by_its_own_address_without_a_console_error(work: Work, name: str, theme: str) -> None:
    with viewing(work.url, theme) as viewer:
        page = viewer.open(name)
        if name != "live":  # which is never done
            viewer.settle()
            assert page.get_by_test_id("stAlertContentError").count() == 0
        viewer.shot(name)
        dark = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        assert dark == ("rgb(16, 22, 29)" if theme == "dark" else "rgb(255, 255, 255)")
        viewer.assert_clean()


def test_pages_are_reached_from_each_other_and_by_a_reload(work: Work) -> None:
    with viewing(work.url) as viewer:
        page = viewer.open("live")
        for name in ("explore", "models", "try", "live"):
            page.get_by_test_id("stSidebarNav").get_by_text(name.capitalize(), exact=True).click()
            page.get_by_role("heading", name=name.capitalize(), exact=True).wait_for()
        page.get_by_test_id("stSidebarNav").get_by_text("Explore", exact=True).click()
        page.get_by_role("heading", name="Explore", exact=True).wait_for()
        assert page.url.endswith("/explore")
        page.reload()
        page.get_by_role("heading", name="Explore", exact=True).wait_for()
        viewer.assert_clean()


@THEMES
def test_an_alert_appears_as_it_comes_and_opens_with_its_reasons(work: Work, theme: str) -> None:
    with viewing(work.url, theme) as viewer:
        page = viewer.open("live")
        before = int(_metric(page, "alerts seen").inner_text())
        expect(_metric(page, "flows/s")).to_have_text(re.compile("^[1-9]"), timeout=PATIENCE_MS)
        produce_now(work.servers, work.topic, 1, 2)
        expect(_metric(page, "alerts seen")).to_have_text(str(before + 2), timeout=PATIENCE_MS)
        page.get_by_text("Pause", exact=True).click()
        page.wait_for_timeout(3000)  # what was under way
        page.get_by_test_id("stDataFrame").first.click(position={"x": 17, "y": 52})
        opened = page.get_by_text("One alert", exact=True)
        opened.wait_for()
        expect(page.get_by_text("<b>DDoS</b>: **10.0.0.1**:80 → ![x](//192.0.2.1/x.png):443")).to_be_visible()
        expect(page.get_by_text("judged").last).to_contain_text("flows-0-2")
        page.wait_for_timeout(1500)
        viewer.shot("live-opened")
        viewer.assert_clean()


@THEMES
def test_every_tab_of_explore_shows_what_it_promises(work: Work, theme: str) -> None:
    with viewing(work.url, theme) as viewer:
        page = viewer.open("explore")
        viewer.settle()
        expect(page.get_by_text("300 of 300 rows")).to_be_visible()
        assert page.get_by_test_id("stVegaLiteChart").locator("visible=true").count() == 2  # before and after
        for tab, charts in (("Classes", 1), ("Correlations", 1), ("Features", 0)):
            page.get_by_role("tab", name=tab).click()
            viewer.settle()
            assert page.get_by_test_id("stVegaLiteChart").locator("visible=true").count() == charts
            page.wait_for_timeout(1000)
            viewer.shot(f"explore-{tab.lower()}")
        viewer.assert_clean()


def test_a_category_and_a_file_without_labels_are_explored_too(work: Work) -> None:
    with viewing(work.url) as viewer:
        page = viewer.open("explore")
        viewer.settle()
        _choose(page, "Feature", "service")
        viewer.settle()
        expect(page.get_by_text("gives each category")).to_be_visible()
        _choose(page, "Data", "unlabelled.csv")
        viewer.settle()
        expect(page.get_by_text("20 of 20 rows")).to_be_visible()
        page.get_by_role("tab", name="Classes").click()
        expect(page.get_by_text("This file has no label column.")).to_be_visible()
        viewer.assert_clean()


@THEMES
def test_models_stand_side_by_side_with_curves_and_a_report(work: Work, theme: str) -> None:
    with viewing(work.url, theme) as viewer:
        page = viewer.open("models")
        viewer.settle()
        expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(2, timeout=PATIENCE_MS)
        expect(page.get_by_text("No report of other")).to_be_visible()
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Open").click()
        heading = opened.value.get_by_role("heading", name="tiny-unsw-nb15 0.0.1")
        expect(heading).to_be_visible(timeout=PATIENCE_MS)
        assert opened.value.locator("figure img").first.evaluate("it => it.naturalWidth") > 0
        with page.expect_download() as download:
            page.get_by_test_id("stDownloadButton").get_by_role("button").click()
        saved = (work.folder / "reports" / "first" / "report.html").read_bytes()
        assert download.value.path().read_bytes() == saved
        page.wait_for_timeout(1500)
        viewer.shot("models-report")
        viewer.assert_clean()


@THEMES
def test_score_and_reasons_move_as_a_feature_is_changed(work: Work, theme: str) -> None:
    with viewing(work.url, theme) as viewer:
        page = viewer.open("try")
        viewer.settle()
        _choose(page, "Begin with", "a usual benign flow")
        viewer.settle()
        before, reasons = _score(page), page.get_by_test_id("stVegaLiteChart").first.inner_html()
        _choose(page, "Features to change", "sttl")
        viewer.settle()
        field = page.get_by_label("sttl (hops)", exact=True)
        field.fill("100000")
        field.press("Enter")
        expect(page.get_by_test_id("stMetric").filter(has_text="score").get_by_test_id("stMetricDelta")).to_be_visible()
        viewer.settle()
        after = _score(page)
        assert after > before + 0.2
        assert page.get_by_test_id("stVegaLiteChart").first.inner_html() != reasons
        viewer.shot("try-changed")
        viewer.assert_clean()


@THEMES
def test_a_csv_is_uploaded_and_its_verdicts_are_downloaded(work: Work, theme: str) -> None:
    with viewing(work.url, theme) as viewer:
        page = viewer.open("try")
        viewer.settle()
        page.get_by_role("tab", name="A CSV").click()
        page.get_by_test_id("stFileUploader").locator("input").set_input_files(work.folder / "unlabelled.csv")
        button = page.get_by_role("button", name="Download the verdicts")
        button.wait_for()
        viewer.settle()
        with page.expect_download() as download:
            button.click()
        assert download.value.suggested_filename == "unlabelled.verdicts.csv"
        verdicts = pl.read_csv(download.value.path())
        assert verdicts["row"].to_list() == list(range(20)) and "novelty" in verdicts.columns
        assert (
            f"{int(verdicts['verdict'].sum())}"
            in page.get_by_test_id("stMetric").filter(has_text="attacks").inner_text()
        )
        viewer.shot("try-csv")
        viewer.assert_clean()


def test_a_csv_that_does_not_fit_is_refused_with_its_own_name(work: Work) -> None:
    (work.folder / "other_[x].csv").write_text("a,b\n1,2\n")
    with viewing(work.url) as viewer:
        page = viewer.open("try")
        viewer.settle()
        page.get_by_role("tab", name="A CSV").click()
        page.get_by_test_id("stFileUploader").locator("input").set_input_files(work.folder / "other_[x].csv")
        expect(page.get_by_text("other_[x].csv: none of the 2 columns is a feature of unsw-nb15")).to_be_visible()
        viewer.assert_clean()


@THEMES
def test_where_there_is_nothing_to_show_a_page_says_what_to_do(theme: str, tmp_path: Path, free_port: int) -> None:
    chromium()
    options = ("--bundle", str(tmp_path / "none"), "--bootstrap-servers", f"127.0.0.1:{free_port}")
    with running(*options, folder=tmp_path) as url, viewing(url, theme) as viewer:
        for name, told in {
            "explore": "start the dashboard with --data FILE",
            "models": "start the dashboard with --bundle DIR",
            "try": "start the dashboard with --bundle DIR",
            "live": "say with --bootstrap-servers where one runs",
        }.items():
            page = viewer.open(name)
            expect(page.get_by_test_id("stAlert").filter(has_text=told)).to_be_visible(timeout=PATIENCE_MS)
            viewer.shot(f"{name}-empty")
        viewer.assert_clean()


def _metric(page: Page, name: str) -> Locator:
    return page.get_by_test_id("stMetric").filter(has_text=name).get_by_test_id("stMetricValue").first


def _score(page: Page) -> float:
    return float(_metric(page, "score").inner_text())


def _choose(page: Page, label: str, option: str) -> None:
    box = page.get_by_role("combobox", name=label, exact=True)
    box.click()
    box.fill(option)  # of a long list only a part is drawn
    page.get_by_role("option", name=option, exact=True).click()


def test_in_a_report_nothing_may_run_and_there_are_no_others(work: Work) -> None:
    with urllib.request.urlopen(f"{work.url}/report/0") as answer:
        assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    for number in (1, 2):
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(f"{work.url}/report/{number}")
        refused.value.close()
