"""The script of gpu-gate.yml that reads the repository's settings, run for real.

The answers of `gh` are the fields that GitHub's REST API documents for a branch's rules, for an
environment and for its deployment branch policies.
"""

import pytest

ACTIONS = 15368  # the app that is GitHub Actions


def check(name, app=ACTIONS):
    return {"context": name, "integration_id": app}


def required(*checks, up_to_date):
    parameters = {
        "required_status_checks": list(checks),
        "strict_required_status_checks_policy": up_to_date,
    }
    return {"type": "required_status_checks", "parameters": parameters}


def approval(count=1, dismissed=True):
    parameters = {
        "required_approving_review_count": count,
        "dismiss_stale_reviews_on_push": dismissed,
    }
    return {"type": "pull_request", "parameters": parameters}


CHECKS = (check("ci"), check("gpu-gate"))
UP_TO_DATE = required(*CHECKS, up_to_date=True)
QUEUE = {"type": "merge_queue", "parameters": {}}
MAIN, BRANCHES = "rules/branches/main", "rules/branches/gpu%2Fany"
GPU, BY_HAND = "environments/gpu", "environments/gpu-by-hand"
POLICIES = "environments/gpu/deployment-branch-policies"
RESTRICTED = {"protected_branches": False, "custom_branch_policies": True}


def policies(*names, kind="branch"):
    return {"branch_policies": [{"name": name, "type": kind} for name in names]}


def reviewers(*names):
    rule = {"type": "required_reviewers", "reviewers": [{"type": "User"} for _ in names]}
    return {"protection_rules": [rule], "deployment_branch_policy": None}


RIGHT = {
    MAIN: [{"type": "deletion"}, approval(), UP_TO_DATE],
    BRANCHES: [{"type": "creation"}, {"type": "update"}],
    GPU: {"protection_rules": [{"type": "branch_policy"}], "deployment_branch_policy": RESTRICTED},
    POLICIES: policies("main", "gpu/**/*", "gh-readonly-queue/main/*"),
    BY_HAND: reviewers("a"),
}


def read(runner, settings):
    """The step's exit status and its complaints, where None is a setting that GitHub lacks."""
    for path, answer in settings.items():
        if answer is not None:
            runner.answer(f"GET repos/us/kan/{path}", answer)
    finished = runner.run(
        "gpu-gate.yml", "settings", "The settings that this file names", GH_TOKEN="", REPO="us/kan"
    )
    complaints = [line for line in finished.stdout.splitlines() if line.startswith("::error::")]
    return finished.returncode, complaints


@pytest.mark.parametrize(
    "main",
    [
        RIGHT[MAIN],
        [approval(2), QUEUE, required(*CHECKS, up_to_date=False)],
        # One ruleset for each check, another for pull requests of the whole organisation.
        [
            approval(0, False),
            required(CHECKS[0], up_to_date=True),
            approval(),
            required(CHECKS[1], up_to_date=False),
        ],
    ],
    ids=["up to date", "queue", "several rulesets"],
)
def test_settings_as_the_file_names_them_are_green(runner, main):
    assert read(runner, RIGHT | {MAIN: main}) == (0, [])
    assert runner.asked("POST", "PATCH") == []


# For each answer those that lack something, and the one complaint of each; in the script's order.
MISSING = {
    MAIN: [
        ([approval(), required(check("ci"), up_to_date=True)], "the check 'gpu-gate'"),
        ([approval(), required(check("gpu-gate"), up_to_date=True)], "the check 'ci'"),
        (
            [approval(), required(check("ci"), check("gpu-gate", None), up_to_date=True)],
            "the check 'gpu-gate' from GitHub Actions",
        ),
        (
            [approval(), required(check("ci"), check("gpu-gate", 1), up_to_date=True)],
            "the check 'gpu-gate' from GitHub Actions",
        ),
        ([approval(), required(*CHECKS, up_to_date=False)], "neither a merge queue nor"),
        ([UP_TO_DATE], "asks for a pull request"),
        ([approval(0), UP_TO_DATE], "asks for a pull request"),
        ([approval(dismissed=False), UP_TO_DATE], "asks for a pull request"),
    ],
    BRANCHES: [
        ([], "branches under gpu/"),
        ([{"type": "creation"}], "branches under gpu/"),
        (None, "branches under gpu/"),
    ],
    GPU: [
        ({"protection_rules": [], "deployment_branch_policy": None}, "'gpu' is missing"),
        (None, "'gpu' is missing"),
    ],
    POLICIES: [
        (policies("main", "*"), "'gpu' has to be open to main"),
        (policies("main", "gpu/*", "mainly"), "'gpu' has to be open to main"),
        (policies("main", kind="tag"), "'gpu' has to be open to main"),
        (policies(), "'gpu' has to be open to main"),
        (None, "'gpu' has to be open to main"),
    ],
    BY_HAND: [
        (reviewers(), "'gpu-by-hand' is missing"),
        ({"protection_rules": [], "deployment_branch_policy": None}, "'gpu-by-hand'"),
        ({"protection_rules": [{"type": "wait_timer", "wait_timer": 5}]}, "'gpu-by-hand'"),
        (None, "'gpu-by-hand' is missing"),
    ],
}


# A run of the script takes most of a second: each lacks something in as many answers as possible.
@pytest.mark.parametrize("number", range(max(map(len, MISSING.values()))))
def test_each_setting_that_is_missing_is_named(runner, number):
    planted = {path: faults[number] for path, faults in MISSING.items() if number < len(faults)}
    settings = {path: answer for path, (answer, _) in planted.items()}
    status, complaints = read(runner, RIGHT | settings)
    assert status == 1
    assert len(complaints) == len(planted)
    for said, (_, complaint) in zip(complaints, planted.values(), strict=True):
        assert complaint in said


def test_a_fresh_repository_hears_of_all_at_once(runner):
    status, complaints = read(runner, {MAIN: [], BRANCHES: []})
    assert status == 1
    assert len(complaints) == 8
