from self_pruner.prompts.__main__ import main


def test_the_command_prints_the_prompt_of_a_made_up_turn(capsys):
    assert main(["default", "vary"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("You are smollm2-135m")
    assert "Task: make a better candidate" in out


def test_the_command_says_in_one_line_what_is_wrong_with_a_prompt(tmp_path, capsys):
    (tmp_path / "turn.j2").write_text("{{ nonsense }}")
    assert main(["default", "vary", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["defualt", "vary"]) == 2
    assert "did you mean 'default'" in capsys.readouterr().err


def test_the_command_wants_a_set_and_a_kind(capsys):
    assert main(["default", "dance"]) == 2
    assert main([]) == 2
    assert "usage: python -m prompts SET initialise|plan|vary" in capsys.readouterr().err
