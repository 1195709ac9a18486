"""What the documents name is there: flags of our commands, and files."""

import re

import pytest

from benchmarks.speed import AXES
from spidercap.pipeline.settings.config import fields
from tests.conftest import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "recipes").glob("*.flags"))]
# Flags of other programs: model servers, Beam's runners, SLURM, curl and its like.
OTHERS = {
    *(
        "enable_batching",
        "batching_parameters_file",
        "model_config_file",
        "allow_version_labels_for_unavailable_models",
    ),
    *("dir", "all", "node_modules", "logdir", "project", "region", "temp_location", "sdk_container_image"),
    *("flink_master", "environment_type", "environment_config", "spark_master_url", "job_endpoint", "runner"),
    *("direct_num_workers", "direct_running_mode"),
    *("nodes", "time", "signal", "requeue", "array", "steps"),
}
PAST = {"log.md"}  # tells what flags were then


@pytest.fixture(scope="module")
def flags():
    """The flags of spidercap, and those that argparse of another command of the project knows."""
    sources = " ".join(
        path.read_text() for room in ("benchmarks", "tests", "pipeline") for path in ROOT.glob(f"{room}/**/*.py")
    )
    return {*fields(), *AXES, "flagfile", "help", *re.findall(r'add_argument\(\s*"--([a-z_0-9]+)', sources), *OTHERS}


def named(page):
    return set(re.findall(r"(?<![\w-])--([a-z_0-9]+)(?![\w-])", page.read_text()))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in PAST], ids=lambda page: page.name)
def test_flags_exist(page, flags):
    assert not {flag for flag in named(page) - flags if flag.removeprefix("no") not in flags}


def test_a_flag_that_does_not_exist_is_seen(flags, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`--workdir=w --nojit --side_by_side=20`, `--temp_location=t`")
    assert named(page) - flags == {"nojit", "side_by_side"}


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
