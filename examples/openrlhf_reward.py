"""OpenRLHF: a reward function in a file, or over HTTP.

    --reward.remote_url examples/openrlhf_reward.py --data.label_key target

or, with `python examples/openrlhf_reward.py 8000` on any machine, ``--reward.remote_url http://HOST:8000/reward``;
in older versions ``--remote_rm_url`` and ``--label_key``. The labels are rows of our JSONL as JSON text.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from scenerl.rewards import score_text

REWARDS = {"format": 0.5, "node_box": 1, "hard_recall": 3}
MAX_BYTES = 64 * 2**20
ENDS = ("<|endoftext|>", "<|im_end|>", "</s>")
TAIL = 64  # characters at the end of a prompt, behind its image


def answer_in(query: str, prompt: str) -> str:
    """The answer in a query, which is the text of all tokens: a prompt in which images are long, answer and end."""
    _, found, answer = query.partition(prompt[-TAIL:])
    answer = answer if found else query
    for token in ENDS:
        answer = answer.rstrip().removesuffix(token)
    return answer


def scores(queries, prompts, labels) -> dict[str, list[float]]:
    """Each reward and their weighted sum."""
    answers = [answer_in(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
    rows = [score_text(answer, label, REWARDS) for answer, label in zip(answers, labels, strict=True)]
    return {name: [row[name] for row in rows] for name in ("score", *REWARDS)}


def reward_func(queries, prompts, labels, **_):
    import torch

    values = {name: torch.tensor(column) for name, column in scores(queries, prompts, labels).items()}
    total = values.pop("score")
    return {"rewards": total, "scores": total, "extra_logs": values}


class Handler(BaseHTTPRequestHandler):
    """Answers what OpenRLHF posts."""

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        if not 0 < size <= MAX_BYTES:
            return self.send_error(413)
        try:
            body = json.loads(self.rfile.read(size))
            reply = json.dumps({"rewards": scores(body["query"], body["prompts"], body["labels"])["score"]}).encode()
        except (ValueError, KeyError, TypeError) as error:
            return self.send_error(400, str(error)[:200].replace("\n", " "))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(reply)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
