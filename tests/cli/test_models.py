from pix2seqd.interop import cards


def heads(out: str) -> list[str]:
    return [line.partition(" ")[0] for line in out.splitlines() if line and line[0] != " "]


def test_models_lists_all_bundled_or_those_that_are_named(run, folder):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    code, out, err = run("models")
    assert code == 0 and err == ""
    for card in cards.bundled():
        assert f"\n{card.name}" in "\n" + out
    code, out, err = run("models", folder)
    assert code == 0 and err == "" and "mit" in out
    assert heads(out) == [str(folder)]


def test_models_markdown_is_one_table(run):
    code, out, err = run("models", "--markdown")
    assert (code, out, err) == (0, cards.markdown(cards.bundled()) + "\n", "")


def test_models_bad_folder_is_one_line_and_nothing_else(run, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("missing", "empty", "file"):
        code, out, err = run("models", folder, name)
        assert code == 2 and out == "" and len(err.splitlines()) == 1 and name in err


def test_models_repeated_names_are_listed_once(run, folder):
    code, out, _ = run("models", "nuclei", folder, "nuclei", folder)
    assert code == 0 and heads(out) == ["nuclei", str(folder)]
