"""The final answer of a text against a reference, in the forms of public data sets."""

import sys
import threading

import pytest

from alignment.errors import ScorerError
from reward.verifiers.math import is_correct, parse_reference


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        # references: a number, with currency, commas and units; GSM8K; MATH; LaTeX
        ("The answer is 42.", "42"),
        ("It costs $1,234.50 in total", "$1,234.50"),
        ("3 apples", "3"),
        ("18", "18 dollars"),
        ("5", r"5\text{ cm}"),
        ("5 km/h", "5"),
        ("-5", "-$5"),
        ("#### 1,000", "He has 40+2 boxes.\n40*25=<<40*25=1000>>1000\n#### 1000"),
        (r"\boxed{42}", r"So we get $x=\boxed{42}$."),
        (r"\boxed{\frac{2}{4}}", r"$\frac{1}{2}$"),
        ("0.5", r"\frac12"),
        ("1/2", r"\dfrac{1}{2}"),
        (r"\boxed{50\%}", "1/2"),
        ("50%", "50"),
        ("1500", "1.5e3"),
        ("-3", "−3"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{Paris}", r"\text{Paris}"),
        (r"\boxed{\text{(A)}}", "A"),
        # thousands and mixed numbers; the spaces are no signs
        ("#### 1000", "1 000"),
        ("#### 1 000", "1000"),
        ("#### 12\u2009345\u202f678 dollars", "12345678"),
        ("$1\u00a0000.50", "1,000.5"),
        ("The answer is $1 000$.", "1000"),
        (r"\boxed{10\,000}", "10 000"),
        (r"\boxed{10\ 000\text{ cm}}", "10,000"),
        (r"\boxed{1{,}000}", r"1,\!000"),
        ("#### 1 1/2", "3/2"),
        ("#### -1 1/2 cups", "-1.5"),
        ("The answer is 1 1/2", r"1\frac{1}{2}"),
        ("The answer is $2 3/4$.", "2.75"),
        (r"\boxed{5 \frac 1 2}", "5.5"),
        ("#### **42**", "42"),
        ("#### **$42** in total", "42"),
        # symbolic equality
        ("#### 47+85", "132"),
        (r"\boxed{(1, 2)}", "(1,2)"),
        (r"\boxed{\left[0, 1\right) \cup (2, \infty)}", r"[0,1)\cup(2,\infty)"),
        (r"\boxed{\frac{\sqrt{3}}2}", r"\frac12\sqrt{3}"),
        (r"\boxed{2(3x-1)(x+2)}", r"6x^2+10x-4"),
        (r"\boxed{2(3+4)}", "14"),
        (r"\boxed{\log_2 8}", "3"),
        (r"\boxed{2 \cdot 3}", "6"),
        (r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"\boxed{x^2+2x+1}", "(x+1)^2"),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
        (r"\boxed{(-\infty,2]}", r"(-\infty, 2]"),
        (r"\boxed{\{3,1,2\}}", "1,2,3"),
        (r"\boxed{5}", "x=5"),
        (r"\boxed{2^{100}}", "1267650600228229401496703205376"),
        (r"\boxed{(x+1)^{50}}", "(1+x)^{50}"),
        # which part of a text is its final answer
        (r"Not \boxed{41}, but \boxed{42}, page 7", "42"),
        (r"\boxed{\frac{4}{\sqrt{4}}} 9", "2"),
        ("#### 41\nAgain:\n#### 42\n7", "42"),
        ("so 40+2=42", "42"),
        ("first 3, then 42", "42"),
        ("Answer: **42**", "42"),
        ("The final answer is $\\frac{3}{4}$. I hope it is correct.", "0.75"),
        ("answer: \\(42\\)", "42"),
        ("$$42$$", "42"),
        ("word " * 5_000 + "42", "42"),
    ],
)
def test_an_answer_that_equals_the_reference(answer: str, reference: str) -> None:
    assert is_correct(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", "42"),
        ("no number", "42"),
        ("٤٢", "42"),
        ("-42", "42"),
        ("4 2", "42"),
        ("42 or 41", "42"),
        ("#### 47 85", "132"),  # not the sum, the product or the digits of both
        (r"\boxed{47 85}", "132"),
        ("#### 7 8 9", "24"),
        ("#### 47 850", "897"),
        ("#### 0 132", "132"),
        ("#### 1 1/2", "1"),
        ("#### 47 85/1", "132"),
        ("$47 85$", "132"),
        ("The final answer is $47 85$. I hope", "132"),
        ("The answer is $1 1/2$ or so", "1"),
        (r"\boxed{47\;85}", "132"),
        (r"\boxed{47\quad 85}", "132"),
        (r"\boxed{47{85}}", "132"),
        (r"\boxed{{47} 85}", "132"),
        (r"\boxed{47(85)}", "132"),
        (r"\boxed{(47)(85)}", "132"),
        (r"\boxed{\left(47\right) \left(85\right)}", "132"),
        (r"\boxed{x=47 85}", "x=132"),
        (r"\boxed{47\,85}", "4785"),
        ("#### 0", "1.0"),
        ("#### 1.000.000", "0"),
        ("#### 2**3**4", "234"),
        ("#### ", "42"),
        ("42 #### none", "42"),
        (r"\boxed{}", "42"),
        (r"42 \boxed{42", "42"),  # cut off at max_new_tokens
        (r"\boxed{42} \boxed{42", "42"),
        (r"42 \boxed{?}", "42"),
        (r"\boxed{41, 42}", "42"),
        (r"\boxed{1}, \boxed{42}, \boxed{3}", "42"),
        ("0.33", "1/3"),
        (r"\boxed{y^2+2y+1}", "(x+1)^2"),
        (r"\boxed{(2,1)}", "(1,2)"),
        (r"\boxed{pairs}", "Paris"),  # not the product of its letters
        ("42" + " word" * 5_000, "42"),  # too far from the end
    ],
)
def test_an_answer_that_does_not(answer: str, reference: str) -> None:
    assert not is_correct(answer, reference)


@pytest.mark.parametrize(
    "reference",
    [
        "47 85",
        "7 8 9",
        "1.000.000",
        "1 00",
        "47 85/1",
        "",
        "?",
        "½",
        "a long text",
        r"\boxed{",
        "#### ",
        "x" * 4_000,
        "9^{9^{9^9}}",
        r"\sum_{i=1}^{9} i",
    ],
)
def test_a_reference_that_cannot_be_parsed_is_an_error(reference: str) -> None:
    with pytest.raises(ScorerError, match=r"math reference '.*' cannot be parsed; give a number, LaTeX") as fault:
        is_correct("42", reference)
    assert len(str(fault.value)) < 200
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "answer",
    [
        "9**9**9**9",
        r"\boxed{9^{9^{9^9}}}",
        r"\boxed{1000000000!}",
        r"\boxed{5!!!!}",
        r"\boxed{\binom{10^{9}}{10^{8}}}",
        r"\boxed{\sum_{i=1}^{10^{12}} i}",
        r"\boxed{\int_0^1 e^{x^2\sin x}dx}",
        r"\boxed{(x+y+z+1)^{1000}}",
        r"\boxed{e^{e^{e^{e^e}}}}",
        r"\boxed{\Gamma(10^9)}",
        r"\boxed{" + "(" * 140 + "1" + ")" * 140 + "}",
        r"\boxed{" + r"\sqrt{" * 45 + "2" + "}" * 45 + "}",
        r"\boxed{\cos(\cos(\cos(\cos(\cos(\cos(x))))))}",
        "(" * 1_000,
        "1+" * 500 + "1",
        r"\boxed{" * 20_000,
        "$1$ and " * 120,
        "9" * 20_000,
    ],
)
def test_a_hostile_answer_is_wrong_at_once(answer: str) -> None:  # a hang fails by the limit of every test
    assert not is_correct(answer, "42")
    assert not is_correct(answer, "x^2+1")


def test_it_works_outside_the_main_thread() -> None:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.extend([is_correct("42", "42"), is_correct("41", "42")]))
    thread.start()
    thread.join()
    assert results == [True, False]


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from reward.verifiers import math

    monkeypatch.setitem(sys.modules, "math_verify", None)
    parse_reference.cache_clear()
    math._math_verify.cache_clear()
    with pytest.raises(ScorerError, match=r"math needs math_verify, which is in the extra rewards: pip install"):
        is_correct("42", "42")
    math._math_verify.cache_clear()
