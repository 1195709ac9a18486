"""Flags and flagfiles -> Config: what is taken, and that every mistake is named in one line with its remedy."""

import dataclasses
import json
import subprocess
import sys

import pytest

from spidercap.models.decoder import DECODERS, Decoder
from spidercap.models.encoder import encoder_names
from spidercap.pipeline.errors import UserError
from spidercap.pipeline.evaluation.evaluate import decoder_of
from spidercap.pipeline.settings.config import Config, fields, groups
from spidercap.pipeline.settings.decoding_settings import READ_BY, DecodingSettings, told_of
from spidercap.pipeline.settings.flags import help_text, parse
from spidercap.pipeline.settings.stages import STAGES
from tests.conftest import ROOT


def parsed(*words):
    return parse(["main", "--workdir=runs/x", *words])


def refusal(*words):
    with pytest.raises(UserError) as caught:
        parse(["main", *words])
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def flagfile(tmp_path):
    def write(content, name="some.flags"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return f"--flagfile={path}"

    return write


def test_values_of_every_type_arrive():
    config = parsed("--units=7", "--dropout=0.25", "--jit", "--noend_token_in_reward", "--reward=cider")
    got = (
        config.model.units,
        config.likelihood.dropout,
        config.model.jit,
        config.rewards.end_token_in_reward,
        config.run.workdir,
    )
    assert got == (7, 0.25, True, False, "runs/x")


@pytest.mark.parametrize("name", [n for n, f in fields().items() if f.default == "" and n != "workdir"])
def test_empty_text_means_the_default(name):
    assert parsed(f"--{name}=") == parsed()


def test_image_size_zero_is_the_networks_own():
    assert parsed("--encoder=Xception", "--image_size=0").model.image_size == 299
    assert parsed("--encoder=MobileNetV2").model.image_size == 224


def test_objectives_that_go_together_are_taken():
    pg = "--stages=mle,baseline,pg"
    assert parsed(pg, "--rollouts=0").of_stage("rollouts", "pg") == 0
    assert parsed(pg, "--rollout_policy=greedy", "--rollouts=1").rollouts.rollout_policy == "greedy"
    assert parsed("--stages=mle:1,leave_one_out:1", "--samples=2").of_stage("samples", "leave_one_out") == 2
    assert parsed("--stages=mle:1", "--rollout_policy=greedy").of_stage("rollouts", "pg") == 3  # nobody rolls out
    assert parsed(pg, "--share_rollouts", "--samples=2").rollouts.share_rollouts
    for alone in (["--samples=1"], ["--samples=2", "--rollouts=0"]):
        with pytest.raises(UserError, match="--share_rollouts shares nothing"):
            parsed(pg, "--share_rollouts", *alone)
    with pytest.raises(UserError, match="--rollouts=0 is not allowed"):
        parsed(pg, "--rollout_policy=greedy", "--rollouts=0")
    with pytest.raises(UserError, match="--rollouts=3 is not allowed; add --rollouts=1"):
        parsed(pg, "--rollout_policy=greedy")


def test_decoders_that_go_together_are_taken():
    config = parsed("--decode=beam", "--beam_width=3", "--n_best=3", "--length_penalty=1", "--no_bad_endings")
    words = ("<pad>", "<start>", "<end>", "<unk>", "dog", "with", "a")
    expected = Decoder("beam", 3, length_penalty=1.0, bad_endings=(5, 6), n_best=3)
    assert decoder_of(config, words) == expected
    assert decoder_of(parsed("--decode=beam"), words) == Decoder("beam", 5)
    assert decoder_of(parsed("--beam_width=7"), words) == decoder_of(parsed(), words) == Decoder()
    with pytest.raises(UserError, match="--n_best=4 is more than --beam_width=3; allowed"):
        parsed("--decode=beam", "--beam_width=3", "--n_best=4")


def test_groups_of_diverse_beam_search_are_taken():
    words = ("--decode=diverse_beam", "--beam_width=6")
    expected = Decoder("diverse_beam", 6, beam_groups=6, diversity=0.5)
    assert decoder_of(parsed(*words), ()) == expected
    expected = Decoder("diverse_beam", 6, beam_groups=2, diversity=0.8, n_best=4)
    assert decoder_of(parsed(*words, "--beam_groups=2", "--diversity=0.8", "--n_best=4"), ()) == expected
    with pytest.raises(UserError, match="--beam_groups=4 does not divide --beam_width=6; allowed: 1, 2, 3 or 6"):
        parsed(*words, "--beam_groups=4")
    with pytest.raises(UserError, match=r"--diversity=0\.8 is for --decode=diverse_beam, not for"):
        parsed("--decode=beam", "--diversity=0.8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--decode=sample"], Decoder("sample")),
        (["--decode=sample", "--decode_temperature=0.5", "--n_best=9", "--decode_seed=4"], Decoder("sample", n_best=9)),
        (["--decode=top_k", "--top_k=20"], Decoder("top_k", top_k=20)),
        (["--decode=nucleus", "--top_p=1", "--n_best=3"], Decoder("nucleus", top_p=1.0, n_best=3)),
    ],
)
def test_decoders_that_sample_are_taken(words, expected):
    config = parsed(*words)
    temperature = 0.5 if "--decode_temperature=0.5" in words else 1.0
    assert decoder_of(config, ()) == dataclasses.replace(expected, temperature=temperature)
    assert Config.of(**json.loads(config.to_json())) == config
    assert config.without_effect() == []


def test_every_decoder_has_its_settings_in_the_table():
    assert READ_BY.keys() == DECODERS.keys()
    names = {field.name for field in dataclasses.fields(DecodingSettings)} - {"decode"}
    assert {name for read in READ_BY.values() for name in read} == names


def test_what_tells_how_captions_were_decoded():
    assert told_of({"decode": "greedy", "beam_width": 5, "top_k": 3}) == {"decode": "greedy"}
    assert told_of({"decode": "beam", "beam_width": 5, "top_k": 3}) == {"decode": "beam", "beam_width": 5}
    assert told_of({"decode": "own", "top_k": 3}) == {"decode": "own", "top_k": 3}
    assert told_of({}) == {"decode": "greedy"}


def test_all_networks_are_allowed():
    assert {Config.of(workdir="w", encoder=name).model.encoder for name in encoder_names()} == set(encoder_names())


@pytest.mark.parametrize(
    "flag, shown",
    [
        ("--encoder=MobileNetV1", "did you mean MobileNetV2?"),
        ("--encoder=inceptionv3", "did you mean InceptionV3?"),
        ("--encoder=", "allowed: ConvNeXtBase, "),
        ("--dataset=kodak", "allowed: scenes, files, coco, tfds:NAME"),
        ("--dataset=tfds", "allowed: scenes, files"),
        ("--dataset=files:x", "allowed: scenes, files"),
        ("--best_metric=cidre", "did you mean CIDEr"),
        ("--mode=trian", "did you mean train?"),
        ("--mode=", "allowed: prepare, train, evaluate, score, caption, export"),
        ("--reward=spidr", "did you mean spider?"),
        ("--reward=cider:1,spice:x", "'spice:x' is not metric:weight"),
        ("--metrics=cider,bleu5", "unknown 'bleu5'"),
        ("--metric_workers=0", "a whole number from 1 to 256"),
        ("--metric_timeout=0", "a number from 1"),
        ("--stages=mle:1,sft:3", "unknown 'sft'; allowed: mle, baseline, pg"),
        ("--stages=:3", "allowed: mle, baseline, pg"),
        ("--stages=", "for example --stages=mle:20"),
        ("--stages=,", "for example --stages=mle:20"),
        ("--decay=mle", "'mle' is not name:number; for example mle:0.04"),
        ("--stages=mle:", "not name:number"),
        ("--stages=mle:abc", "not name:number"),
        ("--stages=mle:1;pg:2", "not name:number"),
        ("--stages=mle:-1", "allowed: above 0"),
        ("--stages=mle:0", "allowed: above 0"),
        ("--stages=mle:nan", "allowed: above 0"),
        ("--stages=mle:inf", "at most 1e+06"),
        ("--stages=mle:1e400", "at most 1e+06"),
        ("--learning_rate=1e-3", "'1e-3' is not name:number; for example mle:1e-3"),
        ("--learning_rate=mle:0", "above 0, at most 1"),
        ("--learning_rate=mle:20", "above 0, at most 1"),
        ("--learning_rate=pgg:1e-3", "did you mean pg?"),
        ("--learning_rate=mle:1e-3,mle:1e-4", "mle comes twice"),
        ("--decay=mle:0", "above 0, at most 1"),
        ("--decay=mle:1.5", "above 0, at most 1"),
        ("--units=0", "a whole number from 1 to 65536"),
        ("--units=1.5", "a whole number from 1 to 65536"),
        ("--units=abc", "--units=abc is invalid; allowed: a whole number from 1"),
        ("--units=", "a whole number from 1"),
        ("--units=99999999999999999999", "a whole number from 1"),
        ("--units", "Missing value for flag --units"),
        ("--seed=-1", "a whole number from 0 to 2147483647"),
        ("--seed=3000000000", "a whole number from 0 to 2147483647"),
        ("--max_length=1", "a whole number from 2"),
        ("--image_size=100000", "from 0 to 4096"),
        ("--dropout=1", "a number from 0 to 0.99"),
        ("--dropout=nan", "a number from 0 to 0.99"),
        ("--evaluate_every=-1", "a number from 0 "),
        ("--checkpoint_every=inf", "a number from 0 to"),
        ("--stages=leave_one_out:1", "--samples=1 leaves no other sample to compare with"),
        ("--rollout_policy=beam", "allowed: sample, greedy"),
        ("--rollouts=-1", "a whole number from 0 to 1000"),
        ("--samples=0", "a whole number from 1 to 1000"),
        ("--label_smoothing=1", "a number from 0 to 0.99"),
        ("--scheduled_sampling=2", "a number from 0 to 1"),
        ("--mixer_step=0", "a whole number from 1 to 1000"),
        ("--mixer_epochs=0", "a number from 0.001"),
        ("--mixer_likelihood_weight=1.5", "a number from 0 to 1"),
        ("--max_skipped=0", "a whole number from 1"),
        ("--decode=bean", "did you mean beam?"),
        ("--beam_width=101", "a whole number from 1 to 100"),
        ("--length_penalty=-1", "a number from 0 to 10"),
        (
            "--n_best=2",
            "is for --decode=beam, diverse_beam, sample, top_k or nucleus, not for --decode=greedy; add --decode=beam",
        ),
        (
            "--length_penalty=0.7",
            "is for --decode=beam or diverse_beam, not for --decode=greedy; add --decode=beam, or --length_penalty=0",
        ),
        ("--no_repeat_ngram=3", "add --decode=beam"),
        ("--no_bad_endings", "or --no_bad_endings=false"),
        ("--top_k=3", "is for --decode=top_k, not for --decode=greedy; add --decode=top_k, or --top_k=10"),
        ("--top_p=0.5", "is for --decode=nucleus, not for --decode=greedy; add --decode=nucleus, or --top_p=0.9"),
        ("--decode_temperature=2", "is for --decode=sample, top_k or nucleus, not for --decode=greedy"),
        ("--decode_seed=2", "add --decode=sample, or --decode_seed=0"),
        ("--decode=nukleus", "did you mean nucleus?"),
        ("--top_k=0", "a whole number from 1"),
        ("--top_p=0", "a number from 0.001 to 1"),
        ("--top_p=1.1", "a number from 0.001 to 1"),
        ("--top_p=nan", "a number from 0.001 to 1"),
        ("--decode_temperature=0", "a number from 0.05 to 10"),
        ("--decode_seed=-1", "a whole number from 0 to 2147483647"),
        ("--skip_bad_images=2", "allowed: true or false"),
        ("--end_token_in_reward=", "allowed: true or false"),
        ("--unit=3", "unknown flag --unit; did you mean --units?"),
        ("--quux=3", "unknown flag --quux; --help lists all flags"),
        ("train", "unexpected 'train'; settings are given as --name=value"),
        (
            "--dataset=folder",
            "needs --captions or --train_captions, --captions or --val_captions or --val_fraction, --im",
        ),
        ("--skip_bad_images", "--dataset=scenes does not read --skip_bad_images; add --dataset=files"),
        ("--train_captions=a.json", "add --dataset=files"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(flag, shown):
    message = refusal("--workdir=runs/x", flag)
    assert shown in message
    assert flag.split("=")[0].lstrip("-") in message


def test_settings_of_another_decoder_are_refused_together():
    message = refusal("--workdir=w", "--decode=beam", "--top_p=0.5", "--decode_temperature=2", "--decode_seed=3")
    assert "add --decode=sample, or --decode_temperature=1.0 --top_p=0.9 --decode_seed=0" in message
    message = refusal("--workdir=w", "--decode=top_k", "--no_bad_endings")
    assert "--no_bad_endings=true is for --decode=beam or diverse_beam, not for --decode=top_k" in message


def test_a_workdir_is_needed():
    assert "no --workdir given" in refusal()
    assert "no --workdir given" in refusal("--workdir=")


def test_settings_of_a_wrong_type_are_refused_whoever_gives_them():
    for wrong in ({"units": "8"}, {"units": True}, {"units": 8.0}, {"stages": 3}, {"skip_bad_images": 1}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Config.of(workdir="w", **wrong)
    assert Config.of(workdir="w", dropout=0).likelihood.dropout == 0


def test_flagfile_gives_way_to_the_command_line_wherever_it_stands(flagfile):
    file = flagfile("# comment\n\n// comment\r\n  --units=5  \n--seed=6\n--stages=mle:1, pg:2\n")
    for words in ([file, "--units=9"], ["--units=9", file], ["--units=9", *file.split("=")]):
        config = parsed(*words)
        assert (config.model.units, config.run.seed, config.training.stages) == (9, 6, "mle:1, pg:2")


def test_flagfile_gives_way_to_the_file_that_includes_it(flagfile):
    inner = flagfile("\ufeff--units=5\n--seed=6\n", "inner.flags")
    config = parsed(flagfile(f"--units=9\n{inner}\n"))
    assert (config.model.units, config.run.seed) == (9, 6)


@pytest.mark.parametrize(
    "content, shown",
    [
        ("", "holds no flags"),
        ("# only\n\n// comments\n", "holds no flags"),
        (bytes(range(256)), "is not UTF-8 text"),
        (b"--workdir=a\0b\n", "line 1"),
        ("--seed=1\nhello\n", "line 2: 'hello' is not a flag; needed: one --name=value per line"),
        ("seed=3\n", "line 1: 'seed=3' is not a flag"),
        ("--seed 3\n", "line 1: '--seed 3' is not a flag"),
        ("--workdir=runs/x  # mine\n", "comments on separate lines"),
        ("--unit=3\n", "did you mean --units?"),
        ("--flagfile=\n", "names no file"),
        ("--flagfile=not/there.flags\n", "not/there.flags cannot be read (No such file or directory)"),
    ],
)
def test_flagfiles_that_cannot_be_read_are_named(flagfile, content, shown):
    assert shown in refusal("--workdir=runs/x", flagfile(content))


def test_flagfiles_that_are_no_files_are_named(tmp_path):
    assert "no/such.flags cannot be read" in refusal("--flagfile=no/such.flags")
    assert f"{tmp_path} cannot be read (Is a directory)" in refusal(f"--flagfile={tmp_path}")
    assert "names no file" in refusal("--flagfile=")
    assert "names no file" in refusal("--flagfile")


def test_flagfiles_in_a_circle_are_refused(flagfile, tmp_path):
    own = tmp_path / "own.flags"
    assert "includes itself" in refusal(flagfile(f"--flagfile={tmp_path}/../{tmp_path.name}/own.flags\n", own.name))
    first = flagfile(f"--flagfile={tmp_path}/second.flags\n", "first.flags")
    flagfile(f"{first}\n", "second.flags")
    assert "first.flags includes itself" in refusal(first)
    same = flagfile("--seed=5\n", "same.flags")
    assert parsed(same, same).run.seed == 5  # twice is no circle


def saved_run(folder, **changes):
    learned = {"images": "learned/from", "train_captions": "train.json", "val_captions": "val.json"}
    config = Config.of(workdir=str(folder), units=8, dataset="folder", **learned)
    folder.mkdir()
    content = {**json.loads(config.to_json()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return folder


def test_modes_that_need_a_run_take_its_settings(tmp_path):
    run = saved_run(tmp_path / "run")
    config = parse(["main", "--mode=evaluate", f"--workdir={run}", "--beam_width=3"])
    assert (config.model.units, config.data.images, config.decoding.beam_width, config.run.mode) == (
        8,
        "learned/from",
        3,
        "evaluate",
    )


def test_captioning_asks_for_pictures_even_where_the_run_had_some(tmp_path):
    run = saved_run(tmp_path / "run", skip_bad_images=True)
    assert "--mode=caption needs --images" in refusal("--mode=caption", f"--workdir={run}")
    config = parse(["main", "--mode=caption", f"--workdir={run}", "--images=a.jpg"])
    assert (config.data.images, config.data.skip_bad_images) == ("a.jpg", False)


@pytest.mark.parametrize("mode", ["evaluate", "caption", "export"])
def test_modes_that_need_a_run_say_that_there_is_none(tmp_path, mode):
    images = ["--images=a.jpg"] * (mode == "caption")
    message = refusal(f"--mode={mode}", f"--workdir={tmp_path / 'none'}", *images)
    assert "holds no run (there is no such folder)" in message
    assert not (tmp_path / "none").exists()


def test_settings_of_another_version_are_named(tmp_path):
    message = refusal("--mode=export", f"--workdir={saved_run(tmp_path / 'a', hoops=3, rollouts=None)}")
    assert "written by another version (unknown: hoops; missing: rollouts)" in message
    run = saved_run(tmp_path / "b", log_every=None)  # may change from call to call, so its default serves
    assert parse(["main", "--mode=export", f"--workdir={run}"]).run.log_every == 20
    run = saved_run(tmp_path / "c", precision=None, decode=None)  # it is older than these
    config = parse(["main", "--mode=export", f"--workdir={run}"])
    assert (config.model.precision, config.decoding.decode) == ("float32", "greedy")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_spoiled_settings_are_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    assert "config.json" in refusal("--mode=export", f"--workdir={tmp_path}")


def test_saved_settings_of_a_wrong_type_are_named(tmp_path):
    message = refusal("--mode=export", f"--workdir={saved_run(tmp_path / 'a', units='8')}")
    assert "--units=8 is invalid" in message


def test_help_shows_every_flag_once_under_its_group():
    text = help_text()
    lines = text.splitlines()
    shown = [line.removeprefix("  --").partition("=")[0] for line in lines if line.startswith("  --")]
    assert shown == [*fields(), "flagfile"]
    heads = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert heads[1:] == [*(f"{group}:" for group in groups()), "files:", "stages:"]
    assert all(f"  {name}" in text for name in STAGES)
    assert max(map(len, lines)) <= 100
    assert "  --units=512                 Hidden units (H).\n" in text


@pytest.mark.parametrize(("flags", "code"), [(["--help"], 0), (["--workdir=w", "--units=0"], 1), (["--unit=3"], 1)])
def test_help_and_refusals_do_not_wait_for_tensorflow(flags, code):
    script = (
        "import sys, spidercap.pipeline.main\n"
        f"code = spidercap.pipeline.main.main(['main', *{flags}])\n"
        "slow = {'tensorflow', 'keras', 'tensorflow_datasets', 'jpype'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == code and "imported" not in ran.stderr, ran.stderr


def test_help_that_is_not_read_to_its_end_is_no_error():
    code = "import sys; from spidercap.pipeline.main import main; sys.exit(main(['main', '--help']))"
    command = f'{sys.executable} -c "{code}" | head -1'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("spidercap: ")
