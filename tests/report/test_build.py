import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from alignment.errors import AlignmentError
from alignment.report import build
from tests.report.fake import write_pipeline

NASTY = '<script>alert(\'x\')</script><img src="https://example.invalid/a.png" onerror=alert(1)>" onload="alert(2)'
FETCHING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction", "xlink:href"}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and visible text, and checks that tags close."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(*paths, out):
    return Page(build(list(paths), out).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def own(tmp_path):
    return write_pipeline(tmp_path)


def test_a_judge_that_only_measures_differs_from_one_that_trains(own, tmp_path):
    assert "gold gave the training labels" not in page_of(own, out=tmp_path / "page.html").text
    manifest = json.loads((own / "dpo/manifest.json").read_text())
    manifest["recipe"]["datasets"].append({"path": "elsewhere/label_gold/labels.jsonl"})  # the runs have moved since
    (own / "dpo/manifest.json").write_text(json.dumps(manifest))
    assert "gold gave the training labels" in page_of(own, out=tmp_path / "page.html").text


def test_a_pipeline_s_page_reports_verdict_numbers_and_stages(pipeline, tmp_path):
    page = page_of(pipeline, out=tmp_path / "page.html")
    assert "PPO beats SFT, preferred 83% of the time [78–88]" in page.text
    assert (
        "Judged by gold , each pair in both orders, on 200 held-out prompts." in page.text
    )  # not by the training judge
    assert "161 wins · 9 ties · 30 losses" in page.text
    assert "person gave the training labels" in page.text
    assert "6.04 [5.63, 6.45]" in page.text
    assert "97% 194 of 200" in page.text
    assert "against gold pairs of the baseline's answers 87% [84–90] 391 pairs" in page.text
    assert "against gold measured by the reward stage 84% [81–87] 684 pairs" in page.text
    assert "8 stages in 5 min 22 s" in page.text
    assert "ppo sft + reward data 320 1 min 59 s" in page.text
    assert "transformers 5.23.0" in page.text
    assert "With pleasure: it opens at nine on Saturday" in page.text
    assert page.tags.count("figure") > 10


def test_an_evaluation_comes_from_every_model_it_compares(own, tmp_path):
    manifest = json.loads((own / "evaluate/manifest.json").read_text())
    manifest["recipe"]["candidates"] = [{"name": "ppo", "model_name_or_path": f"{own}/ppo"}, 3]
    manifest["recipe"]["reward_model_path"] = f"{own}/reward"
    (own / "evaluate/manifest.json").write_text(json.dumps(manifest))
    assert "evaluate sft + ppo + reward data – 22 s" in page_of(own, out=tmp_path / "page.html").text


def test_many_examples_are_folded(own, tmp_path):
    row = (own / "evaluate/examples.jsonl").read_text().splitlines()[0]
    (own / "evaluate/examples.jsonl").write_text("\n".join([row] * 7) + "\n")
    page = page_of(own, out=tmp_path / "page.html")
    assert page.tags.count("article") == 7
    assert "3 more prompts" in page.text


def test_one_held_out_value_is_a_dot_of_its_own_kind(own, tmp_path):
    rows = [{"step": s, "loss": 1.0 / s} for s in range(1, 20)] + [{"step": 19, "eval_loss": 0.2}]
    (own / "dpo/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(own / "dpo", out=tmp_path / "page.html")
    assert [value for name, value in page.attributes if name == "class" and "dot" in value] == ["dot s2", "dot s2"]


def test_the_page_fetches_nothing(pipeline, tmp_path):
    page = page_of(pipeline, out=tmp_path / "page.html")
    assert [(name, value) for name, value in page.attributes if name in FETCHING] == []
    assert "link" not in page.tags
    raw = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", raw)
    assert "default-src 'none'" in raw


def test_the_policy_lets_the_page_s_own_script_run(pipeline, tmp_path):
    import base64
    import hashlib

    raw = build([pipeline], tmp_path / "page.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", raw, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in raw.replace("&#39;", "'").replace("&#43;", "+")


def test_everything_from_a_run_is_escaped(tmp_path):
    own = write_pipeline(tmp_path, name="<b>bold & \"quoted\" 'name'")
    results = json.loads((own / "evaluate/results.json").read_text())
    results["win_rate"]["ppo"] = {NASTY: results["win_rate"]["ppo"].pop("gold")}
    results["candidates"].append(NASTY)
    results["win_rate"][NASTY] = {NASTY: {"value": None, "coverage": 0, "statuses": {NASTY: 3}}}
    results["details"]["kl"][NASTY] = {"value": NASTY}
    results["baseline"] = NASTY
    (own / "evaluate/results.json").write_text(json.dumps(results))
    rows = [
        {
            "prompt": NASTY,
            "answers": {NASTY: NASTY, "ppo": NASTY},
            "scores": {NASTY: 1},
            "verdicts": {NASTY: {"ppo": 1}},
        }
    ]
    rows.append(
        {"prompt": [{"role": NASTY, "content": NASTY}, {"role": "user", "content": NASTY}], "answers": {"a": NASTY}}
    )
    (own / "evaluate/examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((own / "ppo/manifest.json").read_text())
    manifest |= {
        "versions": {NASTY: NASTY},
        NASTY: {NASTY: NASTY},
        "command": [NASTY],
        "started": NASTY,
        "status": NASTY,
    }
    manifest["recipe"] |= {"model_name_or_path": NASTY, "datasets": [{"path": NASTY}]}
    (own / "ppo/manifest.json").write_text(json.dumps(manifest))
    (own / "ppo/recipe.yaml").write_text(f"key: {NASTY}\n")
    (own / "ppo/metrics.jsonl").write_text(
        "".join(json.dumps({"step": i, NASTY: i, f"eval_{NASTY}": i}) + "\n" for i in range(3))
    )
    plain = page_of(write_pipeline(tmp_path / "plain"), out=tmp_path / "plain.html")
    page = page_of(own, out=tmp_path / "page.html")
    assert NASTY in " ".join(page.words)
    assert "<b>bold & \"quoted\" 'name'" in page.words
    assert page.tags.count("script") == plain.tags.count("script") == 1
    assert "img" not in page.tags
    assert set(page.tags) <= {*plain.tags, "circle"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_single_run_needs_no_pipeline(pipeline, tmp_path):
    page = page_of(pipeline / "ppo", out=tmp_path / "page.html")
    assert "1 stage in 1 min 59 s" in page.text
    assert "No evaluation among these runs" in page.text
    assert "step 0 The library opens." in page.text  # samples.jsonl: first beside last
    assert "step 320 With pleasure" in page.text


def test_several_runs_share_a_page(pipeline, tmp_path):
    page = page_of(pipeline / "sft", pipeline / "evaluate", out=tmp_path / "page.html")
    assert "PPO beats SFT" in page.text
    assert "2 stages" in page.text


def test_the_default_place_is_beside_the_runs(own):
    assert build([own]) == own / "report.html"


@pytest.mark.parametrize("gone", ["manifest.json", "metrics.jsonl", "recipe.yaml", "samples.jsonl"])
def test_a_missing_file_is_reported_or_left_out(own, tmp_path, gone):
    (own / "ppo" / gone).unlink()
    page = page_of(own, out=tmp_path / "page.html")
    assert ("ppo : manifest.json is missing" in page.text) == (gone == "manifest.json")


@pytest.mark.parametrize(
    "file", ["evaluate/results.json", "evaluate/examples.jsonl", "ppo/manifest.json", "pipeline.json"]
)
@pytest.mark.parametrize("content", ["{", "[]", "3", '"words"', "null", '{"stages": 3, "win_rate": [1], "results": 2}'])
def test_a_damaged_file_is_reported_and_does_not_stop_the_page(own, tmp_path, file, content):
    (own / file).write_text(content + "\n")
    page = page_of(own, out=tmp_path / "page.html")
    if not content.startswith('{"'):  # an object that is another file's
        assert re.search(rf"{Path(file).name}( is damaged|: 1 damaged lines| is missing)", page.text)


def test_lines_of_metrics_that_are_gone_are_reported(own, tmp_path):
    manifest = json.loads((own / "ppo/manifest.json").read_text())
    lines = (own / "ppo/metrics.jsonl").read_text().splitlines(keepends=True)
    (own / "ppo/manifest.json").write_text(json.dumps({**manifest, "metrics_lines": len(lines)}))
    assert "lines that the run wrote" not in page_of(own, out=tmp_path / "page.html").text
    (own / "ppo/metrics.jsonl").write_text("".join(lines[:-2]))
    told = f"metrics.jsonl has {len(lines) - 2} of the {len(lines)} lines that the run wrote"
    assert told in page_of(own, out=tmp_path / "page.html").text


def test_a_results_file_with_holes_is_shown_as_far_as_it_goes(own, tmp_path):
    results = json.loads((own / "evaluate/results.json").read_text())
    del results["details"]
    results["win_rate"]["dpo"]["gold"] = {"value": None, "coverage": 0.0, "statuses": {"api_error": 200}}
    results["win_rate"]["ppo"]["gold"] |= {"coverage": 0.9, "statuses": {"ok": 180, "refusal": 20}}
    (own / "evaluate/results.json").write_text(json.dumps(results))
    page = page_of(own, out=tmp_path / "page.html")
    assert "DPO was not judged, every question to the judge failed" in page.text
    assert "gold gave no verdict on dpo: every question failed" in page.text
    assert "gold judged 90.0% of the pairs of ppo; the others are not counted (20 refusal)" in page.text
    assert "6.04" in page.text  # plain numbers stand in for the details


def test_a_metrics_line_cut_off_by_a_kill_is_ignored_and_one_in_the_middle_is_reported(own, tmp_path):
    with (own / "sft/metrics.jsonl").open("a") as file:
        file.write('{"step": 405, "lo')
    assert "damaged" not in page_of(own, out=tmp_path / "page.html").text
    text = (own / "dpo/metrics.jsonl").read_text().splitlines()
    text[2] = '{"step"'
    (own / "dpo/metrics.jsonl").write_text("\n".join(text) + "\n")
    assert (
        "dpo : metrics.jsonl: 1 damaged lines left out, the first is line 3"
        in page_of(own, out=tmp_path / "p.html").text
    )


def test_a_failed_stage_shows(own, tmp_path):
    pipeline = json.loads((own / "pipeline.json").read_text())
    pipeline["stages"]["dpo"]["status"] = "failed"
    del pipeline["stages"]["ppo"]
    pipeline["stages"]["never"] = {"status": "failed", "seconds": 0.4}
    (own / "pipeline.json").write_text(json.dumps(pipeline))
    page = page_of(own, out=tmp_path / "page.html")
    assert "dpo failed sft" in page.text
    assert "dpo : it failed; see its log" in page.text
    assert "never failed" in page.text


def test_undecided_and_lost_are_called_so(own, tmp_path):
    results = json.loads((own / "evaluate/results.json").read_text())
    results["win_rate"]["dpo"]["gold"] |= {"value": 0.52, "low": 0.45, "high": 0.59}
    results["win_rate"]["ppo"]["gold"] |= {"value": 0.3, "low": 0.25, "high": 0.36}
    (own / "evaluate/results.json").write_text(json.dumps(results))
    page = page_of(own, out=tmp_path / "page.html")
    assert "DPO and SFT cannot be distinguished, preferred 52% of the time [45–59]" in page.text
    assert "PPO loses to SFT, preferred 30% of the time [25–36]" in page.text


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(AlignmentError, match=r"no such folder"):
        build([tmp_path / "nothing"])
    with pytest.raises(AlignmentError, match=r"not a run: none of manifest\.json"):
        build([tmp_path])
    with pytest.raises(AlignmentError, match=r"no run was named"):
        build([])
    assert list(tmp_path.iterdir()) == []


JUNK = (None, -1.5, "words", [], {}, [{}], {"a": 1}, True, float("nan"))


def places(value, at=()):
    yield at
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))


def replaced(value, at, junk):
    if not at:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(copy[at[0]], at[1:], junk)
    return copy


@pytest.mark.parametrize("file", ["evaluate/results.json", "reward/manifest.json", "pipeline.json"])
def test_no_value_of_a_wrong_type_stops_the_page(own, tmp_path, file):
    for metrics in own.glob("*/metrics.jsonl"):
        metrics.unlink()  # drawing is what takes time
    whole = json.loads((own / file).read_text())
    for number, at in enumerate(places(whole)):
        if number % 4 == 0:  # every fourth place, with each kind of junk in turn: seconds instead of minutes
            (own / file).write_text(json.dumps(replaced(whole, at, JUNK[number // 4 % len(JUNK)])))
            build([own], tmp_path / "page.html")
