"""--mode=score: files in, the evaluation's numbers out, and what is wrong with a file told by its place."""

import json
import subprocess
import sys

import numpy as np
import pytest

from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation import score_files, scoring
from spidercap.pipeline.evaluation.score_files import read_captioned
from spidercap.pipeline.main import main
from spidercap.pipeline.metrics.tuple_store import TupleStore
from tests.conftest import demo_tuples

REFERENCES = {
    "images": [{"id": 7}, {"id": 3}, {"id": 9}],
    "annotations": [
        {"image_id": 3, "caption": "A dog runs."},
        {"image_id": 7, "caption": "Two red birds sit on a wire."},
        {"image_id": 3, "caption": "A brown dog is running!"},
        {"image_id": 9, "caption": "A bus."},
    ],
}
RESULTS = [{"image_id": 3, "caption": "a dog is running"}, {"image_id": 7, "caption": "two birds on a wire"}]


@pytest.fixture
def files(tmp_path):
    """Writes the two files, changed as asked, and returns their paths."""

    def write(references=REFERENCES, results=RESULTS):
        paths = tmp_path / "references.json", tmp_path / "results.json"
        for path, content in zip(paths, (references, results), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return tuple(map(str, paths))

    return write


def run(references, results, *more):
    return main(["main", "--mode=score", f"--references={references}", f"--results={results}", *more])


def test_captions_meet_their_references_in_the_order_of_ids(files, capsys):
    captioned = read_captioned(*files())
    assert captioned.image_ids == (3, 7)
    assert captioned.captions == ("a dog is running", "two birds on a wire")
    assert captioned.references == (("A dog runs.", "A brown dog is running!"), ("Two red birds sit on a wire.",))
    assert "2 of 3 images" in capsys.readouterr().out


def test_files_of_other_formats_score_alike(files, tmp_path, capsys):
    scores = []
    as_table = "id,caption\n" + "".join(f'{row["image_id"]},"{row["caption"]}"\n' for row in REFERENCES["annotations"])
    by_image = json.dumps({str(row["image_id"]): row["caption"] for row in RESULTS})
    for changed in ({}, {"results": by_image}, {"references": as_table}, {"references": as_table, "results": by_image}):
        assert run(*files(**changed), "--metrics=bleu,cider", f"--output={tmp_path / 'scores.json'}") == 0
        scores.append(json.loads((tmp_path / "scores.json").read_text()))
    assert scores[1:] == scores[:1] * 3


def test_ids_are_keys_of_any_kind(files, tmp_path):
    """Text and negative ids are taken; 16.0 is 16, and "16" is another image."""
    ids = ["16", 16.0, -1, "000016.png", 2**70]
    annotations = [{"image_id": i, "caption": f"caption number {k}"} for k, i in enumerate(ids)]
    results = [{"image_id": i, "caption": f"caption number {k}"} for k, i in enumerate(["16", 16, *ids[2:]])]
    captioned = read_captioned(*files(references={"annotations": annotations}, results=results))
    assert captioned.references == tuple((caption,) for caption in captioned.captions)
    assert list(map(repr, captioned.image_ids)) == ["-1", "16", str(2**70), "'000016.png'", "'16'"]
    output = tmp_path / "scores.json"
    paths = files(references={"annotations": annotations[1:]}, results=results[1:])
    assert run(*paths, "--metrics=bleu", f"--output={output}") == 0
    assert set(json.loads(output.read_text())["images"]) == {"16", "-1", "000016.png", str(2**70)}


def test_ids_that_an_output_cannot_tell_apart_are_refused(files, tmp_path, capsys):
    rows = [{"image_id": i, "caption": "a dog"} for i in (16, "16")]
    paths = files(references={"annotations": rows}, results=rows)
    assert run(*paths, "--metrics=bleu", f"--output={tmp_path / 'scores.json'}") == 1
    assert "1 image ids come as a number and as text (16); rename them" in capsys.readouterr().err
    assert run(*paths, "--metrics=bleu") == 0


def test_empty_captions_are_scored_and_counted(files, capsys):
    annotations = [*REFERENCES["annotations"], {"image_id": 3, "caption": "\U0001f415"}]
    results = [RESULTS[0], {"image_id": 7, "caption": " . "}]
    assert run(*files(references={"annotations": annotations}, results=results), "--metrics=bleu") == 0
    assert "warning: 1 of 2 captions and 1 of 4 references are without words, and are scored so" in (
        capsys.readouterr().err
    )


def test_bad_references_are_left_out(files, capsys):
    """Of image 9 nothing is left; of image 3 one reference is marked and one is too long."""
    annotations = [
        *REFERENCES["annotations"][:2],
        {"image_id": 3, "caption": "A brown dog.", "is_rejected": True, "is_precanned": False},
        {"image_id": 3, "caption": "dog " * 2501},
        {"image_id": 9, "caption": "\U0001f68c"},
    ]
    results = [*RESULTS, {"image_id": 9, "caption": "a bus"}]
    paths = files(references={"annotations": annotations}, results=results)
    captioned = read_captioned(*paths, skip_bad_captions=True)
    assert dict(zip(captioned.image_ids, captioned.references, strict=True)) == {
        3: ("A dog runs.",),
        7: ("Two red birds sit on a wire.",),
    }
    told = capsys.readouterr().err
    assert "skipping 3 of 5 captions of" in told and "1 without words" in told and "1 marked is_rejected" in told
    assert "skipping 1 of 3 images whose references are all left out" in told
    assert run(*paths, "--metrics=bleu") == 1
    assert "over 10,000 characters (3); fix or remove" in capsys.readouterr().err
    assert run(*paths, "--metrics=bleu", "--skip_bad_captions") == 0


def test_marked_references_are_used_and_counted(files, capsys):
    annotations = [{**row, "is_precanned": row["image_id"] == 9} for row in REFERENCES["annotations"]]
    assert len(read_captioned(*files(references={"annotations": annotations})).image_ids) == 2
    assert "1 of 4 captions are marked is_rejected or is_precanned and used as any others; --skip_bad_captions" in (
        capsys.readouterr().err
    )


def test_references_without_a_list_of_images(files):
    captioned = read_captioned(*files(references={"annotations": REFERENCES["annotations"]}))
    assert captioned.image_ids == (3, 7)


def test_scores_are_written_by_image(files, tmp_path, capsys):
    """Image 3's words are all in one of its references: BLEU-1 is that of 4 of 4 words."""
    output = tmp_path / "deep" / "scores.json"
    assert run(*files(), "--metrics=bleu,rouge,cider", f"--output={output}") == 0
    scores = json.loads(output.read_text())
    assert list(scores["corpus"]) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert list(scores["images"]) == ["3", "7"]
    assert scores["images"]["3"]["BLEU-1"] == pytest.approx(1, abs=1e-6)
    # 5 of 5 words, but 5 are said where 7 are needed.
    assert scores["images"]["7"]["BLEU-1"] == pytest.approx(np.exp(1 - 7 / 5), abs=1e-6)
    shown = capsys.readouterr().out
    assert "2 images" in shown and f"{scores['corpus']['CIDEr']:.3f}" in shown


def test_without_java_the_own_tokenizer_is_named(files, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "java_found", lambda: False)
    assert run(*files(), "--metrics=cider") == 0
    told = capsys.readouterr()
    assert "spidercap's own tokenizer" in told.err and "CIDEr" in told.out


def test_without_java_its_metrics_are_refused_at_the_door(files, monkeypatch, capsys):
    def absent():
        raise UserError("METEOR and SPICE need Java")

    monkeypatch.setattr("spidercap.pipeline.metrics.text_metrics.find_jvm", absent)
    assert run(*files()) == 1
    assert "need Java" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"references": "{"}, "references.json is not JSON"),
        ({"references": []}, "references.json holds no captions"),
        ({"references": {"images": []}}, "has no list 'annotations'"),
        ({"references": {"annotations": [{"image_id": 3}]}}, "'caption' of annotations[0] is missing"),
        ({"references": {**REFERENCES, "images": [{"id": [7]}]}}, "'id' of images[0] is [7]"),
        ({"results": {"annotations": []}}, "results.json holds no captions"),
        ({"results": []}, "holds no captions"),
        ({"results": [{"image_id": 3, "caption": None}]}, "'caption' of results[0] is None; needed: text"),
        ({"results": [{"image_id": True, "caption": "a"}]}, "'image_id' of results[0] is True"),
        ({"results": [{"image_id": float("nan"), "caption": "a"}]}, "'image_id' of results[0] is nan"),
        ({"results": [{"image_id": "3", "caption": "a"}]}, "no references (\"3\"); '3' here is 3 there, but text"),
        ({"results": [{"image_id": "3", "caption": "a"}, {"image_id": "x", "caption": "a"}]}, "; score against the"),
        ({"results": [*RESULTS, RESULTS[0]]}, "1 images have more than one caption (3)"),
        ({"results": [{"image_id": 4, "caption": "a"}]}, "1 images have no references (4)"),
        ({"results": [{"image_id": 3, "caption": "dog," * 2501}]}, "a caption of over 10,000 characters (3)"),
    ],
)
def test_wrong_files_are_refused(files, capsys, changed, words):
    assert run(*files(**changed), "--metrics=cider") == 1
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_what_the_mode_needs(files, capsys):
    references, _ = files()
    assert main(["main", "--mode=score", f"--references={references}"]) == 1
    assert "needs --references and --results" in capsys.readouterr().err
    assert run(references, "nowhere.json", "--metrics=cider") == 1
    assert "nowhere.json cannot be read" in capsys.readouterr().err


def test_demo_of_the_coco_evaluation_exactly(files, tmp_path, data_folder, corenlp):
    """SPICE of the demo as published: the mean, and each image's, to the last bit. Its parses are those stored."""
    demo = json.loads((data_folder / "coco" / "demo_tokenized.json").read_text())
    published = json.loads((data_folder / "coco" / "demo_spice_per_image.json").read_text())
    annotations = [{"image_id": e["image_id"], "caption": c} for e in demo for c in e["refs"]]
    results = [{"image_id": e["image_id"], "caption": e["test"]} for e in demo]
    store = TupleStore(tmp_path / "cache")
    store.put(demo_tuples())
    store.close()
    output = tmp_path / "scores.json"
    paths = files(references={"annotations": annotations}, results=results)
    where = f"--metric_cache_dir={tmp_path / 'cache'}", f"--corenlp={corenlp}", f"--output={output}"
    assert run(*paths, "--metrics=spice", *where) == 0
    scores = json.loads(output.read_text())
    assert scores["corpus"]["SPICE"] == 0.13288891803208125
    assert {image: score["SPICE"] for image, score in scores["images"].items()} == {
        str(image["image_id"]): image["scores"]["All"]["f"] for image in published
    }


def test_tensorflow_is_not_imported(files, tmp_path):
    """Nor for a file that is missing, which is told before the other one is read."""
    references, results = files()
    more = "--metrics=bleu,rouge,cider", f"--output={tmp_path / 'scores.json'}"
    code = (
        "import sys\nfrom spidercap.pipeline.main import main\n"
        "codes = [main(['main', '--mode=score', '--references=' + sys.argv[1], '--results=' + results, *sys.argv[3:]])"
        " for results in (sys.argv[2], 'nowhere.json')]\n"
        "heavy = {'tensorflow', 'keras', 'tensorflow_datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else str(codes))"
    )
    done = subprocess.run([sys.executable, "-c", code, references, results, *more], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[0, 1]", done.stderr
    assert "nowhere.json cannot be read (No such file or directory)" in done.stderr
    assert (tmp_path / "scores.json").exists()


def test_missing_files_are_told_before_any_is_read(files, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(score_files, "read_captioned", lambda *paths: pytest.fail("work was begun"))
    references, results = files()
    for paths, words in (
        (("nowhere.json", results), "--references=nowhere.json cannot be read (No such file"),
        ((references, "nowhere.json"), "--results=nowhere.json cannot be read (No such file"),
        ((tmp_path, results), "cannot be read (it is a folder)"),
        ((references, "a\0b"), "cannot be read (embedded null"),
    ):
        assert run(*paths, "--metrics=cider") == 1
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1


def test_line_breaks_within_captions_shift_nothing(files, tmp_path):
    """Captions that break the evaluation's own tokenizer score as if a space stood there."""
    broken = [
        {"image_id": 3, "caption": "a dog\u2028is\r\nrunning"},
        {"image_id": 7, "caption": "two birds\non a wire"},
    ]
    scores = []
    for results in (RESULTS, broken):
        output = tmp_path / "scores.json"
        assert run(*files(results=results), "--metrics=cider,bleu,rouge", f"--output={output}") == 0
        scores.append(json.loads(output.read_text()))
    assert scores[0] == scores[1]


def test_an_output_that_cannot_be_is_refused_before_any_work(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(score_files, "read_captioned", lambda *paths: pytest.fail("work was begun"))
    references, results = files()
    (tmp_path / "file").touch()
    for output, words in (
        (tmp_path, "is a folder"),
        (results, "is an input file"),
        (tmp_path / "file" / "x", "be written"),
    ):
        assert run(references, results, "--metrics=cider", f"--output={output}") == 1
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS
