import pytest


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--steps"),
        (["--steps", "1,x"], "whole numbers"),
        (["--steps", "1.5"], "whole numbers"),
        (["--td", "nan"], "0 to a million"),
        (["--first-steps", "3"], "--steps"),
    ],
)
def test_sweep_bad_usage_prints_one_line(options: list[str], says: str, run):
    code, _, err = run("sweep", "nuclei", "--data", "shapes:1", *options)
    assert code == 2 and says in err and len(err.strip().splitlines()) == 1
