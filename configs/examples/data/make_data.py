"""Writes orders.jsonl beside this file, the same bytes each time: `python configs/examples/data/make_data.py`.

The texts are our own. Each template belongs to one split only, so that what is learned on train has to hold for messages that are
built differently. {id} is the order id asked for; {date}, {phone}, {code} and {sum} are there to mislead.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

ORDERS = {
    "train": [
        "Hi, I ordered a {item} last week (order {id}) and it still hasn't arrived. Can you check?",
        "The {item} from order {id} came with a scratch on the side. I'd like a replacement please.",
        "Order {id}: please change the delivery address to 14 Mill Lane.",
        "Good morning, could you tell me when {id} will be shipped? I need the {item} by {date}.",
        "I was charged twice for {id}. The amount is {sum}. Please refund one of the payments.",
        "Please cancel {id}, I found the same {item} cheaper elsewhere.",
        "My phone is {phone}. Call me about order {id}, the {item} is the wrong colour.",
        "Regarding your mail of {date}: yes, {id} is the one I want to send back.",
        "Where is my parcel? Tracking says {code} but nothing moves. The order was {id}.",
        "hello!! i bought a {item} and the box was empty!! order number {id} thx",
        "We are still waiting for the invoice for {id}. Our accountant needs it before {date}.",
        "Thanks for the quick answer. The order in question is {id}, the {item} has a broken lid.",
        "Can I add a second {item} to {id} before it leaves your warehouse?",
        "You sent me a {item} I never asked for. My order {id} was for something else.",
        "To whom it may concern, I hereby withdraw from the purchase {id} dated {date}.",
        "The voucher {code} was not applied to {id}. Please correct the total of {sum}.",
    ],
    "val": [
        "Is it normal that {id} is still 'processing' after nine days? I only bought a {item}.",
        "My neighbour took the parcel in but one part of {id} is missing, namely the {item}.",
        "Two questions about {id}: can I pay by invoice, and does the {item} come with batteries?",
        "Reference {code}, order {id}. The courier left the {item} in the rain and it is ruined.",
        "I moved on {date}. Please make sure that {id} goes to the new flat, not to the old one.",
        "The {item} works great, but I was promised free shipping on {id} and paid {sum}.",
        "My wife placed {id} by mistake, we already own a {item}. What can we do?",
        "Please confirm in writing that {id} was cancelled, I spoke to your colleague on {date}.",
    ],
    "test": [
        "Six weeks! That's how long I've been waiting for a simple {item}. {id} if you care to look it up.",
        "I'd like to return the {item} (bought {date}). Do you need anything besides {id} from me?",
        "Somebody at {phone} told me that you lost my package. It was {id}. Is that true?",
        "Could the gift card {code} be used for {id} after the fact?",
        "{id} - {item} - arrived broken - please advise.",
        "For my tax return I need a copy of the bill over {sum}, it belongs to {id}.",
        "Dear team, the {item} is too small. I would swap it for the larger one; see {id}.",
        "Nobody answers at {phone}, so I'm writing instead: what happened to {id}?",
        "Your driver says the address on {id} does not exist. It does, I live here since {date}!",
        "Just wanted to say that everything about {id} went perfectly, and my son loves the {item}.",
    ],
}
EACH = {"train": 6, "val": 5, "test": 4}  # messages of each template

ITEMS = """kettle,desk lamp,backpack,toaster,rain jacket,bike helmet,coffee grinder,bookshelf,garden hose,phone case,travel pillow,
wall clock,blender,yoga mat,tent,headset,keyboard,teapot,vase,camera strap""".replace("\n", "").split(",")
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def orders() -> list[dict[str, str]]:
    rng = random.Random(20261122)
    rows = []
    for split, templates in ORDERS.items():
        for number, template in enumerate(templates):
            for repeat in range(EACH[split]):
                order = f"{letters(rng, 2)}-{rng.randrange(10000, 99999)}"
                values = {
                    "id": order,
                    "item": rng.choice(ITEMS),
                    "date": f"{rng.randrange(1, 29)} {rng.choice(('March', 'April', 'May', 'June', 'October'))}",
                    "phone": f"0{rng.randrange(200, 999)} {rng.randrange(1000000, 9999999)}",
                    "code": f"{letters(rng, 1)}{rng.randrange(100, 999)}-{letters(rng, 2)}{rng.randrange(10, 99)}",
                    "sum": f"{rng.randrange(12, 400)}.{rng.randrange(0, 100):02d} euros",
                }
                text = template
                for name, value in values.items():
                    text = text.replace("{" + name + "}", value)
                rows.append({"id": f"order-{split}-{number:02d}-{repeat}", "split": split, "question": text, "answer": order})
    return rows


def letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(count))


def write(name: str, rows: list[dict[str, str]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    Path(__file__).with_name(name).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write("orders.jsonl", orders())
