"""What a server prints once it listens."""

from alignment.serving.greeting import EXPOSED, greeting


def test_a_token_of_this_run_is_shown_and_the_users_is_not():
    made = greeting("m: scores at URL", "use", host="127.0.0.1", api_key_env="KEY", token="t")
    assert made == ["m: scores at URL; Ctrl-C ends", "token, made for this run: export KEY=t", "use"]
    assert greeting("m", "use", host="127.0.0.1", api_key_env="KEY", token=None) == ["m; Ctrl-C ends", "use"]


def test_an_address_that_others_reach_is_pointed_out():
    assert greeting("m", "use", host="0.0.0.0", api_key_env="KEY", token=None)[-1] == EXPOSED
