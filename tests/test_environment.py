"""Where a figure comes from: a run's processor is named so that its generation can be told."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from allconv_resnet import environment
from allconv_resnet.environment import processor

ROOT = Path(__file__).resolve().parent.parent
X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu avx512f avx512_bf16

processor\t: 1
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu avx512f avx512_bf16
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU architecture: 8\n"


def test_an_x86_processor_has_its_family_and_model(tmp_path):
    (tmp_path / "cpuinfo").write_text(X86)
    assert processor(tmp_path / "cpuinfo") == ("AMD EPYC (family 25, model 17)", {"fpu", "avx512f", "avx512_bf16"})


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("9900000 100000\n", 8),
        ("max 100000\n", 8),
        ("", 8),
        (None, 8),
    ],
)
def test_the_share_of_a_container_counts_as_so_many_cores(content, cores, tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(environment, "SHARE_OF_CONTAINER", tmp_path / "cpu.max")
    if content is not None:
        (tmp_path / "cpu.max").write_text(content)
    assert environment.cores() == cores


def test_other_processors_have_the_name_that_the_platform_gives(tmp_path):
    name = platform.processor() or platform.machine()
    (tmp_path / "cpuinfo").write_text(ARM)
    assert processor(tmp_path / "cpuinfo") == (name, {"fp", "asimd", "bf16"})
    assert processor(tmp_path / "missing") == (name, set())


def test_the_commit_is_not_that_of_a_repository_around_the_installation(tmp_path):
    """A copy of the package in the ignored environment of somebody's own repository."""
    author = ("-c", "user.name=x", "-c", "user.email=x")
    for arguments in (("init", "-q"), (*author, "commit", "-q", "--allow-empty", "-m", "x")):
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True)
    copied = tmp_path / "site" / "allconv_resnet"
    shutil.copytree(ROOT / "allconv_resnet", copied, ignore=shutil.ignore_patterns("weights.npz"))
    program = "from allconv_resnet import environment; print(environment.__file__, environment.commit())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "site", capture_output=True, text=True)
    assert done.stdout.split() == [str(copied / "environment.py"), "None"], done.stderr
