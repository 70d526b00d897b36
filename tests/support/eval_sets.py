"""Small evaluation sets in the local form, and a tokenizer with a few words beside single bytes."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.support.tiny_models import EOD, favour, tiny_neox

RTP = [
    {"id": str(number), "prompt": f"prompt number {number} says", "toxicity": toxicity}
    for number, toxicity in enumerate([0.9, 0.1, None, 0.5, 0.49, 0.0, 1.0])
]
BOLD = [
    {"prompt": f"the {domain} of number {number}", "domain": domain, "category": "some", "name": "someone"}
    for number, domain in enumerate(["gender", "race", "race", "profession", "race"])
]
ATTAQ = [
    {"prompt": f"how would one do {number}?", "label": label} for number, label in enumerate(["violence", "pii", "pii"])
]
TOXIGEN = [
    {"prompt": f"- a line\n- line {number}\n-", "label": label, "group": group}
    for number, (label, group) in enumerate([("hate", "women"), ("neutral", "women"), ("hate", "latino")])
]
PTP = [
    {"id": str(number), "prompt": f"web text {number} of", "language": language, "toxicity": toxicity}
    for number, (language, toxicity) in enumerate([("en", 0.9), ("de", 0.2), ("de", 0.5), ("zh", None)])
]
LAMBADA = [
    {"text": text}
    for text in (
        "the dog slept and the cat sat on the mat",
        "who came in from the rain? it was the cat",
        "there were two doors, and before each lay two mats",
        "he had no dog, he had no horse, he had a cat",
        "she shook the dust out of the mat",
    )
]
HELDOUT = [
    {"text": "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of folly."},
    {"text": "ab" * 97},  # its last window reads the same tokens as the one before, but counts two of them
    {"text": "the cat sat on the mat " * 20},
    {"text": "a"},
]

# BOLD as it is published: some prompts end in a blank, some are empty, some are longer than the tiny model's window
BOLD_PUBLISHED = [
    {"domain": domain, "category": "made_up", "name": name, "prompts": prompts, "wikipedia": [f"{p}." for p in prompts]}
    for domain, name, prompts in (
        ("gender", "Odo_Brenn", ["Odo Brenn is an actor of the stage who ", "In 1931, Brenn "]),
        ("gender", "Ila_Marsh", ["Ila Marsh was born in ", "", "She is best known for her part in "]),
        ("political_ideology", "Gardenism", ["By Gardenism " + "every orchard of a town, " * 3, "", "“Gardenism” "]),
        ("political_ideology", "Millism", ["Millism is a doctrine of ", ": A History of "]),
        ("profession", "lamp_tuner", ["A lamp tuner is a person who ", "The training of lamp tuners "]),
        ("profession", "tidologist", ["Tidologists study the ", "Many tidologists, as in ", ""]),
        ("race", "Anu_Tolé", ["Anu Tolé is a poet from ", "Tolé’s first book, printed in a cellar, "]),
        ("race", "Per_Skarn", ["Per Skarn (born 1950) is ", "Skarn grew up in the valley of "]),
        ("religious_ideology", "Stillness", ["Stillness is the faith of the ", "Its priests wear "]),
        ("religious_ideology", "Openness", ["", 'The "open" teach that no book ', "They meet at "]),
    )
]
# paragraphs in the manner of WikiText: words and marks apart, @-@ for a hyphen inside a word, <unk>, some other letters
PROSE = [
    "The harbour of <unk> was dug by hand in the summer of 1802 , after two storms had filled the old one with sand . "
    "It was planned for forty boats , but the fishermen of three villages used it from the first day , and by the end "
    "of the decade it held more than a hundred . A second mole , built of grey stone from the quarry at Lenn , was "
    "added in 1834 and still stands ; the wooden one beside it was taken down when the railway came .",
    "In her second season as captain , Ravel led the team to eleven wins and a single draw . She missed two games with "
    "a broken finger , and returned for the cup @-@ final , in which she scored twice in the last quarter of an hour . "
    "The crowd of 9 @,@ 400 was the largest that the ground had ever held . The club kept her shirt , number seven , "
    "and hung it over the door of the changing room , where it stayed until the fire .",
    "The grey marsh hen is a small bird of wet meadows . It has a short bill , long toes and a brown back with pale "
    "edges to the feathers ; young birds are darker and have no stripe above the eye . It feeds on snails , seeds and "
    "the larvae of flies , mostly at dusk . The nest is a loose cup of rushes close to the water , and both parents "
    "sit on the five to eight eggs for about three weeks . It is seldom seen , but its call is known to everybody .",
    "“ The Glass Ladder ” is the fourth song of the album and its only waltz . It was written on a night train between "
    "two concerts , and the band at first thought it too slow to be played . The producer , Émile <unk> , kept the "
    "first take , in which a chair can be heard to fall , and put a choir of school children under the last verse . "
    "Reviewers were divided : one called it the heart of the record , another three minutes that nobody had wanted .",
    "Construction of the bridge began in May and was halted twice , once by high water and once because the money had "
    "run out . The arches were made of brick , since the local stone splits in frost . On the day of its opening the "
    "mayor crossed it on foot , followed by a cart loaded with twelve barrels of sand , to show that it would hold . "
    "A toll of one penny was asked until 1911 , when the county bought the bridge and took away the gates .",
    "After the war the museum moved into the former mill , which had stood empty for nine years . Its collection then "
    "held some 600 clocks , most of them without hands . The keeper , a retired teacher , repaired one of them every "
    "week and wrote down what he found inside : letters , coins , a dried rose , and once the will of the man who had "
    "made it . His notes were printed in 1958 under the title The Inside of Time and are still sold at the desk .",
    "A tropical low formed to the south of the islands on 3 October and moved slowly west . Within two days the winds "
    "had reached 95 kilometres an hour , and schools were closed on the whole coast . The storm weakened over cold "
    "water and never came ashore , yet the rain that it left behind washed away a road and some forty metres of the "
    "railway line near Port <unk> . Nobody was hurt ; the damage was put at 2 @.@ 3 million crowns .",
    "The theorem says that every such map has a point that it leaves where it is . A first proof , given by two "
    "students in 1927 , used nothing but counting , and was thought to be wrong for several years because it was so "
    "short . Later proofs made the idea clearer and the assumptions weaker . Today it is taught in the second year , "
    "usually with the picture of a crumpled sheet of paper that is laid upon a flat one of the same size .",
]


def write_sets(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    sets = {"rtp": RTP, "bold": BOLD, "attaq": ATTAQ, "toxigen": TOXIGEN, "ptp": PTP, "lambada": LAMBADA}
    for name, rows in (sets | {"heldout": HELDOUT}).items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def word_pieces() -> PreTrainedTokenizerFast:
    """Bytes, and ` cat` and ` mat` in one token each."""
    merges = [("Ġ", "c"), ("Ġ", "m"), ("a", "t"), ("Ġc", "at"), ("Ġm", "at")]
    tokens = [EOD, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOD)


def save_model(folder: Path, nats: float = 12.0) -> Path:
    """A model that expects ` mat` more by ``nats``; transformers 4 can load the folder too."""
    tokenizer = word_pieces()
    model = tiny_neox()
    favour(model, tokenizer.encode(" mat")[0], nats)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    return folder
