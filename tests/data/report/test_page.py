import json
import re
import shutil
from html import unescape

import pytest

from cxr.data.report.page import make_page, write_report
from cxr.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:the test part has")
SCRIPT = "<script>alert(1)<"
LOADS = re.compile(r"(?:src|href|action|data|poster|srcset)\s*=\s*[\"']?([^\"'\s>]+)|url\(([^)]*)\)|@import\s+(\S+)")


@pytest.fixture
def page_of(root, report_on):
    """page_of(**report changes): report and page of the dataset in `root`."""

    def made(folder=root):
        report, thumbnails = report_on(folder)
        report = {"name": "a & b", "command": "cxr data report", "made": "today"} | report
        return report, make_page(report, thumbnails)

    return made


def texts(page):
    return [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", page, re.S)]


def test_page_and_json_agree(root, page_of, make_file, save_file):
    for number in range(12):
        folder = root / ("ill" if number < 10 else "well")
        save_file(folder / f"{number:02d}.dcm", make_file(number, PatientName=f"Doe^{number}"))
    report, page = page_of()
    cells = texts(page)
    for part, classes in report["images"].items():
        at = cells.index(part)
        assert cells[at + 1 : at + 3] == [str(count) for count in classes.values()]
        assert cells[at + 3] == str(sum(classes.values()))
    for finding in report["findings"]:
        assert f'id="{finding["key"]}"' in page
        assert [file["path"] in cells for file in finding["files"]] == [True] * 10 + [False] * 2
        assert "and 2 more, all in report.json" in page
    for missing in report["missing_tags"]:
        assert cells[cells.index(missing["tag"]) + 1] == f"{missing['count']} of 20"


def test_repeats_are_counted(root, page_of):
    shutil.copy(root / "ill" / "00.dcm", root / "ill" / "again.dcm")
    _, page = page_of()
    assert "Files that repeat another one byte for byte: 1." in page
    assert re.search(r"Pairs that parts share: none\. <code>cxr data leaks</code>", page)


def test_pairs_that_parts_share_are_counted(page_of):
    report, _ = page_of()
    report["cohort"]["leaks"] |= {"pairs": {"near train/test": 3, "file val/test": 1}, "dropped": 2}
    assert "3 by near train/test, 1 by file val/test; 2 files left out for it." in make_page(report, {})


def test_classes_named_by_numbers_or_with_a_dot_are_counted(tmp_path, page_of, make_file, save_file):
    for number in range(24):
        save_file(tmp_path / "x" / ("0", "v1.5")[number >= 10] / f"{number}.dcm", make_file(number))
    _, page = page_of(tmp_path / "x")
    cells = texts(page)
    assert [cells[cells.index(name) + 2] for name in ("0", "v1.5")] == ["10", "14"]


def test_a_gate_that_does_not_look_is_told(root, report_on):
    report, thumbnails = report_on(root, leak_gate="off")
    heading = {"name": "set", "command": "cxr data report", "made": "today"}
    assert "Leaks were not looked for." in make_page(heading | report, thumbnails)


def test_a_sound_dataset_says_so(page_of):
    _, page = page_of()
    assert "None of the checks below found anything" in page
    assert "Not ready for training" not in page


def test_names_from_outside_are_text(tmp_path, page_of, make_file, save_file):
    folder = tmp_path / 'it\'s "quoted" & <em>bold'
    for number in range(20):
        name = SCRIPT if number < 10 else "well"
        maker = {"Manufacturer": f"<i>{number // 10}"} | ({"Modality": "<u>"} if number == 3 else {})
        save_file(folder / name / f"{number:02d}.dcm", make_file(number, **maker))
    report, page = page_of(folder)
    assert SCRIPT in report["classes"]
    assert not re.search(r"<(?:script|em>|i>|u>)", page)
    cells = texts(page)
    assert str(folder / SCRIPT / "03.dcm") in cells
    assert {SCRIPT, "<i>0", "<i>1", "Modality <U>"} <= set(cells)


def test_the_page_loads_nothing(page_of):
    _, page = page_of()
    places = ["".join(found) for found in LOADS.findall(page)]
    assert any(place.startswith("data:image/jpeg;base64,") for place in places), "the pattern finds the thumbnails"
    assert [place for place in places if not place.startswith(("data:image/jpeg;base64,", "#"))] == []
    assert "<script" not in page
    assert not re.search(r"https?://", page)


def test_data_that_are_not_ready_are_told_on_the_page(root, page_of):
    for path in sorted((root / "ill").iterdir())[1:]:
        path.unlink()
    report, page = page_of()
    assert "Not ready for training" in page
    assert report["split_problem"] in unescape(page)


def test_both_files_are_written(root, report_on, tmp_path):
    report, thumbnails = report_on(root)
    page = write_report(tmp_path / "out" / "here", "set", "cxr data report data=set", report, thumbnails)
    written = json.loads((tmp_path / "out" / "here" / "report.json").read_text())
    assert page == tmp_path / "out" / "here" / "report.html"
    assert {key: written[key] for key in report} == report
    assert (written["name"], written["command"]) == ("set", "cxr data report data=set")
    assert "<title>Data report: set</title>" in page.read_text()


def test_a_folder_that_cannot_be_written_is_one_sentence(root, report_on, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"expected to write the report to .*file.*; choose another --out"):
        write_report(tmp_path / "file", "set", "", *report_on(root))
