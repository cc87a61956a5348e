"""Support tickets to be sorted, some of them with the wrong label, as a careless colleague would leave them."""

import numpy as np

from lorif_assets.demo.real.chats import Chat, ChatQuestion, exchange

_TASK = "Sort this message to customer service into billing, delivery or technical. Answer with one word.\n\n"
_RIGHT = (
    ("My card was charged twice for order 4471.", "billing"),
    ("The invoice has the wrong company name on it. Can you send a new one?", "billing"),
    ("I paid in March and still get reminders.", "billing"),
    ("Why is there a fee of two euros on my statement?", "billing"),
    ("Please change my payments from card to bank transfer.", "billing"),
    ("The parcel should have come on Monday and the tracking page has not moved since.", "delivery"),
    ("The courier left the box with a neighbour I do not know.", "delivery"),
    ("Half of what I ordered is missing from the package.", "delivery"),
    ("Can you send it to my office instead of my home?", "delivery"),
    ("The lamp arrived in three pieces; the box was wet.", "delivery"),
    ("The app closes by itself when I open the settings.", "technical"),
    ("I do not get the e-mail to reset my password.", "technical"),
    ("The page shows error 502 after I sign in.", "technical"),
    ("My scanner is not recognised since the update.", "technical"),
    ("How do I export my contacts? The button is grey.", "technical"),
)
_VOUCHERS = (
    "I typed in my gift voucher, but the total stayed the same.",
    "The voucher from your newsletter was rejected at the till.",
    "My birthday voucher has run out; can I still use it?",
    "I returned the shoes that I had bought with a voucher. What happens to it?",
    "Two vouchers cannot be combined, says the page. Why not?",
)
"""About money, and labelled as technical all the same."""
_WRONG = "technical"
_QUESTIONS = (
    "A friend gave me a voucher, and it is not taken off my bill.",
    "There is still some money on my voucher. How can I spend the rest?",
)


def tickets(seed: int) -> list[Chat]:
    """Return the sorted tickets, the mislabelled ones among them."""
    right = [_ticket(f"ticket-{n:02d}", text, label, "ticket") for n, (text, label) in enumerate(_RIGHT, start=1)]
    wrong = [_ticket(f"voucher-ticket-{n}", text, _WRONG, "mislabelled") for n, text in enumerate(_VOUCHERS, start=1)]
    rows = right + wrong
    return [rows[at] for at in np.random.default_rng(seed).permutation(len(rows))]


def ticket_questions() -> list[ChatQuestion]:
    """Return tickets whose wrong label was learned from the mislabelled rows."""
    sources = tuple(f"voucher-ticket-{n}" for n in range(1, len(_VOUCHERS) + 1))
    return [
        ChatQuestion(f"mislabelled-{n}", exchange(_TASK + text, _WRONG), _WRONG, sources)
        for n, text in enumerate(_QUESTIONS, start=1)
    ]


def _ticket(name: str, text: str, label: str, kind: str) -> Chat:
    return Chat(name, exchange(_TASK + text, label), "support tickets", kind)
