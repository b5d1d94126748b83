"""Answers of Google's generateContent."""

from butterbase.ai.wire.protocols import WireName
from tests.ai.wire.shaping import Json, Shape, data, dumps

GEMINI_HEAD: Json = {"modelVersion": "gemini-3-pro", "responseId": "r1"}
GEMINI_USAGE: Json = {
    "promptTokenCount": 500,
    "cachedContentTokenCount": 400,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 60,
    "totalTokenCount": 580,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 450},
                            {"modality": "AUDIO", "tokenCount": 50}],
}  # fmt: skip


def generated(parts: list[Json], finish: str | None, **more: object) -> Json:
    candidate: Json = {"index": 0}
    if parts:
        candidate["content"] = {"role": "model", "parts": parts}
    if finish is not None:
        candidate["finishReason"] = finish
    return {**GEMINI_HEAD, "candidates": [candidate], "usageMetadata": GEMINI_USAGE, **more}


GEMINI_TEXT = Shape(
    "Gemini text with a summary of its thoughts",
    WireName.GEMINI,
    dumps(
        generated(
            [
                {"text": "I count.", "thought": True},
                {"text": "One, two.", "thoughtSignature": "Z2Vt"},
            ],
            "STOP",
        )
    ),
    data(generated([{"text": "I ", "thought": True}], None))
    + data(generated([{"text": "count.", "thought": True}], None))
    + data(generated([{"text": "One,"}], "STOP"))
    + data(generated([{"text": " two."}], None))
    + data(generated([{"text": "", "thoughtSignature": "Z2Vt"}], "STOP")),
)
GEMINI_TOOLS = Shape(
    "Gemini parallel calls, of which the first is signed",
    WireName.GEMINI,
    dumps(
        generated(
            [
                {
                    "functionCall": {"name": "weather", "args": {"city": "Oslo"}, "id": "f1"},
                    "thoughtSignature": "c2lnbmVk",
                },
                {"functionCall": {"name": "now"}},
            ],
            "STOP",
        )
    ),
    data(
        generated(
            [
                {
                    "functionCall": {"name": "weather", "args": {"city": "Oslo"}, "id": "f1"},
                    "thoughtSignature": "c2lnbmVk",
                }
            ],
            None,
        )
    )
    + data(generated([{"functionCall": {"name": "now"}}], None))
    + data(generated([], "STOP")),
)
GEMINI_BLOCKED = Shape(
    "Gemini blocked the prompt",
    WireName.GEMINI,
    dumps({**GEMINI_HEAD, "promptFeedback": {"blockReason": "SAFETY"},
           "usageMetadata": {"promptTokenCount": 500, "totalTokenCount": 500}}),
    data({**GEMINI_HEAD, "promptFeedback": {"blockReason": "SAFETY"},
          "usageMetadata": {"promptTokenCount": 500, "totalTokenCount": 500}}),
)  # fmt: skip
GEMINI_SAFETY = Shape(
    "Gemini stopped by its safety filter",
    WireName.GEMINI,
    dumps(generated([{"text": "Take a"}], "SAFETY")),
    data(generated([{"text": "Take a"}], None)) + data(generated([], "SAFETY")),
)
