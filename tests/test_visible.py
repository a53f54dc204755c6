from elicitor.visible import all_visible, visible


def test_characters_that_hide_or_reorder_are_written_out():
    assert visible("pay \u202e001\u202c") == "pay ⟨U+202E⟩001⟨U+202C⟩"
    assert visible("\u0000\u0007\u001b[0m\u007f\u0085") == "⟨U+0000⟩⟨U+0007⟩⟨U+001B⟩[0m⟨U+007F⟩⟨U+0085⟩"
    assert visible("a\u200bb\ufeffc\u2066d\u2028e") == "a⟨U+200B⟩b⟨U+FEFF⟩c⟨U+2066⟩d⟨U+2028⟩e"
    assert visible("\U000e0041") == "⟨U+E0041⟩"


def test_ordinary_text_stays():
    for text in ("plain", "two\nlines\tand tab", "Grüße, 你好, שלום, مرحبا", "👩‍🔬 and ✈️", ""):
        assert visible(text) == text


def test_a_joiner_is_kept_between_symbols_alone():
    assert visible("a\u200db👩\u200d") == "a⟨U+200D⟩b👩⟨U+200D⟩"


def test_every_text_in_nested_values_is_treated():
    assert all_visible({"a": ["x\u202e", 1, None], "b": ("y\u0007",)}) == {
        "a": ["x⟨U+202E⟩", 1, None],
        "b": ["y⟨U+0007⟩"],
    }
