from pix2seqd.interop import cards


def test_models_lists_bundled_and_given_folders(run, folder):
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    code, out, err = run("models", folder)
    assert code == 0 and err == ""
    for card in cards.bundled():
        assert f"\n{card.name}" in "\n" + out
    assert str(folder) in out and "mit" in out
    assert out.index(str(folder)) > out.index("shapes")


def test_models_markdown_is_one_table(run):
    code, out, err = run("models", "--markdown")
    assert (code, out, err) == (0, cards.markdown(cards.bundled()) + "\n", "")


def test_models_bad_folder_is_one_line_and_nothing_else(run, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("missing", "empty", "file"):
        code, out, err = run("models", folder, name)
        assert code == 2 and out == "" and len(err.splitlines()) == 1 and name in err


def test_models_bundled_or_repeated_names_are_listed_once(run, folder):
    code, out, _ = run("models", "nuclei", folder, "nuclei", cards.BUNDLED / "facades", folder)
    assert code == 0
    heads = [line.partition(" ")[0] for line in out.splitlines() if line and line[0] != " "]
    assert sorted(heads) == sorted([*(card.name for card in cards.bundled()), str(folder)])
