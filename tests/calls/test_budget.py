import threading

import pytest

from alignment.calls.budget import Budget
from alignment.calls.call import CallContext, ChatReply, call_key
from alignment.calls.caller import DryCaller
from alignment.calls.prices import Prices, Tariff, prices_of, tariff_of
from alignment.config.schema import JudgeEntry, PricesEntry, judge_entry
from alignment.errors import BudgetError, JudgeError
from alignment.evaluate.judging import Comparison

ABOUT = CallContext("j", "h", Comparison("p", "a", "b"), max_tokens=100)
REQUEST = {"messages": "x" * 288}  # 288 // 3 + 4 = 100 tokens
PRICES = Tariff({"j": Prices(prompt=10_000.0, completion=20_000.0, currency="EUR")})  # 0.01 and 0.02 a token
USED = ChatReply("ok", "A", details={"usage": {"prompt_tokens": 50, "completion_tokens": 5}})


def test_a_call_is_held_at_its_most_and_settled_at_its_cost() -> None:
    budget = Budget(PRICES, max_cost=6.5)
    reserved = budget.reserve(REQUEST, ABOUT)
    assert reserved == pytest.approx(100 * 0.01 + 100 * 0.02)
    budget.reserve(REQUEST, ABOUT)  # 3 + 3 of 6.5
    with pytest.raises(BudgetError, match=r"0\.0000 EUR of the budget of 6\.5 .* may cost 3\.0000, beside 6\.0000"):
        budget.reserve(REQUEST, ABOUT)
    assert budget.settle(reserved, USED, ABOUT) == pytest.approx(50 * 0.01 + 5 * 0.02)  # 0.6
    assert budget.summary() == "0.6000 of 6.5 EUR"
    with pytest.raises(BudgetError):
        budget.reserve(REQUEST, ABOUT)  # 0.6 + 3 + 3 = 6.6
    assert budget.settle(3.0, ChatReply("api_error", "500"), ABOUT) == 0.0
    budget.reserve(REQUEST, ABOUT)  # 0.6 + 3


def test_a_reply_without_a_count_costs_what_was_set_aside() -> None:
    assert Budget(PRICES).settle(3.0, ChatReply("ok", "A"), ABOUT) == 3.0
    assert Budget().settle(0.0, USED, ABOUT) is None
    wrong = ChatReply("ok", "A", details={"usage": {"prompt_tokens": -50, "completion_tokens": 5}})
    assert Budget(PRICES).settle(3.0, wrong, ABOUT) == 3.0


def test_calls_of_earlier_processes_count() -> None:
    budget = Budget(max_calls=3, calls=2)
    budget.reserve(REQUEST, ABOUT)
    assert budget.summary() == "3/3 calls"
    with pytest.raises(BudgetError, match=r"the budget of 3 calls \(max_calls\) is used up"):
        budget.reserve(REQUEST, ABOUT)


def test_threads_never_pass_the_limit_together() -> None:
    budget, made, lock = Budget(PRICES, max_cost=30.0), [0], threading.Lock()

    def work() -> None:
        try:
            for _ in range(20):
                budget.reserve(REQUEST, ABOUT)
                with lock:
                    made[0] += 1
        except BudgetError:
            pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == 10  # of 3 each


def test_a_dry_run_counts_what_is_not_known() -> None:
    class CallCache:
        def known(self, key: str) -> ChatReply | None:
            return USED if key == call_key(ABOUT, {"known": "y"}) else None

    dry = DryCaller(CallCache())  # type: ignore[arg-type]

    def send() -> ChatReply:
        raise AssertionError("a call was made")

    assert dry.call(ABOUT, {"known": "y"}, send) is USED
    assert dry.call(ABOUT, REQUEST, send).status == "api_error"
    dry.call(CallContext("j", "h", ABOUT.question, step="reasoning", calls_to_come=1, max_tokens=10), REQUEST, send)
    # 1 call of 100 and 100 tokens, then 2 calls of 100 and 10
    assert (dry.calls, dry.prompt_tokens, dry.completion_tokens) == (3, 300, 120)


def test_a_jurys_members_cost_each_by_its_own_prices() -> None:
    def member(name: str, prompt: float | None, currency: str = "USD") -> JudgeEntry:
        prices = None if prompt is None else PricesEntry(prompt=prompt, completion=0, currency=currency)
        return judge_entry(kind="openai", model="toy", name=name, prices=prices)

    def jury(*members: JudgeEntry) -> JudgeEntry:
        return judge_entry(kind="jury", members=list(members))

    tariff = tariff_of(jury(member("dear", 10_000.0), member("cheap", 1_000.0), member("free", None)))
    assert tariff is not None
    assert tariff.currency == "USD"
    budget, dry = Budget(tariff, max_cost=1.2), DryCaller(prices=tariff)
    for name, most in (("dear", 1.0), ("cheap", 0.1), ("free", 0.0)):  # 100 tokens each
        context = CallContext(name, "h", ABOUT.question)
        assert budget.reserve(REQUEST, context) == pytest.approx(most)
        dry.call(context, REQUEST, lambda: USED)
    assert dry.cost == pytest.approx(1.1)
    with pytest.raises(BudgetError):
        budget.reserve(REQUEST, CallContext("dear", "h", ABOUT.question))
    assert budget.settle(1.0, USED, CallContext("dear", "h", ABOUT.question)) == pytest.approx(0.5)  # 50 tokens
    assert tariff_of(jury(member("a", None), member("b", None))) is None
    with pytest.raises(JudgeError, match="are in EUR and USD"):
        tariff_of(jury(member("a", 1.0), member("b", 1.0, "EUR")))
    with pytest.raises(JudgeError, match="two judges are named a"):
        tariff_of(jury(member("a", 1.0), member("a", 2.0)))


def entry(prices: object) -> JudgeEntry:
    return judge_entry(kind="openai", model="toy", prices=prices)  # type: ignore[arg-type]


def test_prices_stand_in_the_recipe_or_in_a_table(tmp_path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("toy: {prompt: 0.15, completion: 0.6, currency: EUR}\ncheap: {prompt: 0}\n")
    assert prices_of(entry(None)) is None
    assert prices_of(entry(PricesEntry(prompt=2, completion=8))) == Prices(2, 8, "USD")
    assert prices_of(entry(str(table))) == Prices(0.15, 0.6, "EUR")
    assert Prices(0.15, 0.6).cost(2_000_000, 500_000) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("other: {prompt: 1, completion: 1}", "has no entry for model toy"),
        ("toy: {prompt: cheap, completion: 1}", "toy.prompt is 'cheap', not a price per million tokens"),
        ("toy: {prompt: 1}", "toy.completion is None"),
        ("{", "not YAML"),
    ],
)
def test_a_bad_table_is_reported(tmp_path, content: str, message: str) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(content)
    with pytest.raises(JudgeError, match=message):
        prices_of(entry(str(table)))
