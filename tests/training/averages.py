"""The moving average of weights, computed here in double precision from every state that training went through."""

import torch


def average_by_hand(states, decay):
    """Of the states after each update; the first one starts it, and its decay grows as timm's does."""
    average = {name: value.double() for name, value in states[0].items()}
    for number, state in enumerate(states[1:], start=1):
        left = min(decay, (1 + number) / (10 + number))
        average = {name: left * average[name] + (1 - left) * value.double() for name, value in state.items()}
    return average


def assert_same(state, expected):
    """Whether the weights of a state are those expected, but for float32."""
    for name, value in expected.items():
        if state[name].is_floating_point():
            torch.testing.assert_close(state[name].double(), value.double(), atol=1e-5, rtol=1e-4, msg=name)
