"""Answers as providers write them, whole and streamed, in words and numbers of our own.

Each `Shape` tells one answer twice, and both must come to the same.
"""

from tests.ai.wire import shapes_anthropic, shapes_chat, shapes_gemini, shapes_responses
from tests.ai.wire.shaping import Shape

SHAPES = [
    value
    for module in (shapes_chat, shapes_anthropic, shapes_gemini, shapes_responses)
    for value in vars(module).values()
    if isinstance(value, Shape)
]
