"""A short run of Schemathesis; ``make schemathesis`` is the long one."""

from tests.server.fuzzing import TOKEN, fuzz_a_server


def test_a_short_run_finds_nothing(tmp_path, environments_dir):
    run = fuzz_a_server(tmp_path, environments_dir, examples=2, phases="fuzzing", token=TOKEN, seed=1)
    assert run.passed, run.report
    assert run.cases >= 20, run.report
    assert {"200", "401", "404"} <= run.answers.keys(), "requests name what is there, and the token is asked for"
