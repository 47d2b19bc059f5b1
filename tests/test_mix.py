"""λ as text: what is a number, what sums to one, and what is never done silently."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup.errors import RsoupError, UsageError
from rsoup.mix import checked, format_number, parse_number, uniform

decimals = st.decimals(-1000, 1000, places=12, allow_nan=False).map(Fraction)
shares = st.lists(st.fractions(0, 10, max_denominator=1000), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("1", Fraction(1)),
        ("0.3", Fraction(3, 10)),
        (".5", Fraction(1, 2)),
        ("1.", Fraction(1)),
        ("+0.25", Fraction(1, 4)),
        ("-2", Fraction(-2)),
        ("1e-3", Fraction(1, 1000)),
        ("1E3", Fraction(1000)),
        ("1/3", Fraction(1, 3)),
        ("-2/6", Fraction(-1, 3)),
        (" 0.5 ", Fraction(1, 2)),
        ("1e-40", Fraction(1, 10**40)),
    ],
)
@pytest.mark.fault("E6", "E12")
def test_a_number_is_exactly_what_is_written(text: str, value: Fraction) -> None:
    """A decimal or a fraction becomes the very number it says, however small."""
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "nan", "NaN", ".nan", "inf", "-inf", ".inf", "Infinity", "1e999", "1e13", "1e-999", "no"),
        *("true", "1:30", "010", "00.5", "1_0.5", "0x10", "0o7", "1,000", "0,5", "50%", "1.2.3", "1e", "e5"),
        *(".", "+", "--1", "1 2", "1/0", "1/", "/3", "1/-3", "0.5/2", "1/03", "½", "λ", "0.5;", "2024-01-02"),
        *("١.٥", "１", "−1", "0.5\n", "\t1", "0.5\0", "1e5\u200b", "9" * 101, "1/" + "9" * 5000),
    ],
)
@pytest.mark.fault("E3", "E6", "E7", "E12")
def test_everything_else_is_not_a_number(text: str) -> None:
    """NaN, infinities, other digits, other notations and YAML's own readings are refused as E0201."""
    with pytest.raises(UsageError) as caught:
        parse_number(text)

    assert caught.value.code == "E0201"
    assert len(str(caught.value)) < 400
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("0,5", "write the decimal point as a point: 0.5"),
        ("010", "leave out the leading zero: 10"),
        ("30%", "write a share of 1 instead of a percentage: 0.3 for 30 %"),
        ("a third", "write a decimal such as 0.3 or a fraction such as 1/3"),
    ],
)
@pytest.mark.fault("E6", "E7")
def test_the_hint_says_what_to_write(text: str, hint: str) -> None:
    """Common slips come with the text that was probably meant."""
    with pytest.raises(UsageError) as caught:
        parse_number(text)

    assert caught.value.hint == hint


@given(st.text(max_size=40))
@pytest.mark.fault("E3", "E6")
def test_any_text_is_a_number_or_a_usage_error(text: str) -> None:
    """parse_number raises nothing but RsoupError."""
    try:
        value = parse_number(text)
    except RsoupError:
        return

    assert abs(value) <= 10**12


@given(decimals | st.fractions(-1000, 1000))
@pytest.mark.fault("E12")
def test_formatting_loses_nothing(value: Fraction) -> None:
    """parse(format(λ)) = λ."""
    assert parse_number(format_number(value)) == value


@given(decimals)
def test_a_decimal_stays_a_decimal(value: Fraction) -> None:
    """A number that ends after some decimal places is written with a point, without idle zeros."""
    text = format_number(value)

    assert "/" not in text
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize("exponent", [-1, -20, -40, -90])
@pytest.mark.fault("E12")
def test_a_tiny_mix_is_kept(exponent: int) -> None:
    """λ = 1e-40 beside 1 − 1e-40 sums to one exactly, and stays what it is."""
    tiny = parse_number(f"1e{exponent}")

    assert checked([tiny, 1 - tiny]) == (tiny, 1 - tiny)


@given(shares.filter(lambda mix: sum(mix) != 1))
@pytest.mark.fault("E2")
def test_another_sum_than_one_is_refused(mix: list[Fraction]) -> None:
    """Σλ ≠ 1 raises E0203 naming the sum, and nothing is rescaled."""
    with pytest.raises(UsageError, match=f"not to 1|{format_number(sum(mix, Fraction(0)))}") as caught:
        checked(mix)

    assert caught.value.code == "E0203"
    assert ("--normalize" in str(caught.value.hint)) == (sum(mix) > 0)  # which it divides by
    assert "--affine" in str(caught.value.hint)


@pytest.mark.fault("E2")
def test_the_sum_is_exact() -> None:
    """Ten times 0.1 is 1; 0.1 + 1.0 is not; an error in the twelfth place is an error."""
    tenth = parse_number("0.1")

    assert checked([tenth] * 10) == (tenth,) * 10
    for wrong in ([tenth, Fraction(1)], [parse_number("0.500000000001"), Fraction(1, 2)]):
        with pytest.raises(UsageError):
            checked(wrong)


@pytest.mark.fault("E2")
def test_rounded_thirds_come_with_the_exact_fractions() -> None:
    """0.333 and 0.667 are told apart from a wrong sum: the hint offers 1/3,2/3."""
    with pytest.raises(UsageError) as caught:
        checked([parse_number("0.333"), parse_number("0.666")])

    assert "--lambda 1/3,2/3 is exact" in str(caught.value.hint)


@given(shares.filter(lambda mix: sum(mix) > 0))
@pytest.mark.fault("E2")
def test_normalize_divides_by_the_sum(mix: list[Fraction]) -> None:
    """λᵢ/Σλ sums to one exactly and keeps every ratio; doing it twice changes nothing."""
    total = sum(mix, Fraction(0))
    normalized = checked(mix, normalize=True)

    assert sum(normalized) == 1
    assert [value * total for value in normalized] == mix
    assert checked(normalized, normalize=True) == normalized


@given(st.lists(st.fractions(-10, 10, max_denominator=1000), min_size=1, max_size=8))
@pytest.mark.fault("E4", "E5")
def test_affine_takes_every_mix_as_it_is(mix: list[Fraction]) -> None:
    """With affine any λ and any sum pass unchanged."""
    assert checked(mix, affine=True) == tuple(mix)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.fault("E4")
def test_a_negative_share_is_refused(normalize: bool) -> None:
    """λ = (2, −1) sums to one and is still refused (E0204), with the way to mean it."""
    with pytest.raises(UsageError) as caught:
        checked([Fraction(2), Fraction(-1)], normalize=normalize)

    assert caught.value.code == "E0204"
    assert "--affine" in str(caught.value.hint)


@pytest.mark.fault("E5")
def test_nothing_cannot_be_normalized() -> None:
    """Σλ = 0 is refused as E0205 where it would be divided by."""
    with pytest.raises(UsageError) as caught:
        checked([Fraction(0), Fraction(0)], normalize=True)

    assert caught.value.code == "E0205"


@pytest.mark.fault("E2")
def test_normalize_and_affine_contradict_each_other() -> None:
    """One asks for the sum 1, the other for any sum: E0206."""
    with pytest.raises(UsageError) as caught:
        checked([Fraction(1)], normalize=True, affine=True)

    assert caught.value.code == "E0206"


@given(st.integers(1, 1000))
@pytest.mark.fault("E12")
def test_uniform_shares_sum_to_one(count: int) -> None:
    """N · 1/N = 1 exactly, for every N up to the limit."""
    assert len(uniform(count)) == count
    assert checked(uniform(count)) == uniform(count)
