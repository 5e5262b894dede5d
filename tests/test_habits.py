"""The files by which others carry the project on: hosted CI, hooks, forms for issues, the policy of security."""

import re
import stat
from dataclasses import fields
from pathlib import Path

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for
from ruamel.yaml import YAML

from allconv_resnet.serving import kserve
from allconv_resnet.serving.options import ServeOptions

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
FORMS = sorted(path.name for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
SCHEMAS = {
    "workflows/ci.yml": "github-workflows",
    "dependabot.yml": "dependabot",
    "ISSUE_TEMPLATE/config.yml": "github-issue-config",
    **{f"ISSUE_TEMPLATE/{name}": "github-issue-forms" for name in FORMS},
}


def load(path):
    return YAML(typ="safe", pure=True).load(path)


@pytest.mark.parametrize(("name", "schema"), SCHEMAS.items(), ids=SCHEMAS)
def test_files_of_the_hosting_are_valid(name, schema):
    schema = get_builtin_schema(f"vendor.{schema}")
    validator, content = validator_for(schema)(schema), load(GITHUB / name)
    assert [error.message for error in validator.iter_errors(content)] == []
    assert list(validator.iter_errors({**content, "a misspelling": [1]}))  # it does look


def test_every_file_of_the_hosting_has_its_schema():
    assert {path.relative_to(GITHUB).as_posix() for path in GITHUB.rglob("*.yml")} == set(SCHEMAS)


def test_hosted_ci_is_the_script_that_everyone_runs():
    workflow = load(GITHUB / "workflows" / "ci.yml")
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR
    python = next(step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {}))
    assert f"python_requires = >={python}" in (ROOT / "setup.cfg").read_text()
    assert workflow["permissions"] == {"contents": "read"}


def test_hooks_are_the_versions_of_ci():
    pinned = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "docker" / "constraints.txt").read_text(), re.M))
    ruff, local = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert ruff["repo"].endswith("/ruff-pre-commit") and ruff["rev"] == f"v{pinned['ruff']}"
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]
    (imports,) = local["hooks"]
    assert imports["additional_dependencies"] == [f"import-linter=={pinned['import-linter']}"]
    assert imports["entry"] in (ROOT / "Makefile").read_text()


def test_a_report_of_a_fault_has_what_doctor_says():
    (field,) = (each for each in load(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")["body"] if each["id"] == "doctor")
    assert "allconv-resnet doctor" in field["attributes"]["label"] and field["validations"]["required"]


def test_the_policy_of_security_names_what_there_is():
    text = (ROOT / "SECURITY.md").read_text()
    options = {f"--{field.name.replace('_', '-')}" for field in fields(ServeOptions)}
    named = set(re.findall(r"`(--[\w-]+)", text))
    assert {"--certificate", "--api-key-file", "--cors", "--host", "--grpc-port"} <= named <= options
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert (ROOT / name).exists() or name == "page.py", name
    assert ServeOptions().host in text  # 127.0.0.1: nobody else reaches a server that was not told otherwise
    assert {Path(path).parent.as_posix() for path in kserve.OPEN} == {"/v2/health"} and "`/v2/health/*`" in text
