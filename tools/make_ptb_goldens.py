"""Makes tests/goldens/evaluation/ptb_captions.json: captions, and the tokens of COCO's tools, which need Java.

    pip download --no-deps pycocoevalcap==1.2
    unzip -j pycocoevalcap-1.2-py3-none-any.whl "*/stanford-corenlp-3.4.1.jar"
    python tools/make_ptb_goldens.py stanford-corenlp-3.4.1.jar

With --compare N it writes nothing and shows on which of N random captions `ptb.py` differs. The jar is
run as it is (GPL; nothing of it is here). Java looks past the end of a line: captions stand between lines that say x.
"""

import argparse
import json
from pathlib import Path
import random
import subprocess
import tempfile

from xgenmm_jax.evaluation.scorers import ptb

OUTPUT = Path(__file__).parents[1] / "tests" / "goldens" / "evaluation" / "ptb_captions.json"
CAPTIONS = 400

# COCO's list, of the tokens in lower case: it names brackets in capitals, so "-lrb-" stays.
PUNCTUATION = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split()

WORDS = """
a A the The an An man woman dog dogs' cat cat's street sign red Blue on in at of with it is was Now However zebra Paris
isn't Can't won't ain't I'm we've they'll he'd she's y'all Y'all d'oh D'Angelo O'Hara o'clock 'twas 'Tis 'em 'til 'cause
l'eau dell'arte qu'il '90s '50s '86 rock'n'roll rock 'n' roll gonna Wanna cannot gimme lemme gotta ma'am ne'er ol' doin'
somethin' c'mon int'l gov't y'know t'was let's its' shouldn't've I'd've jack-o'-lantern mother-in-law's will-o'-the-wisp
Mr. Mrs Dr. St. U.S. u.k. U.S.A. a.m. p.m. e.g. i.e. etc. vs. No. no. Nos. Fig. Jan. sept. Inc. Co. Jr. Ph.D. Ave. Ft.
ft. in. oz. lbs. R. J.R. x. e.t.c. D.C., well, end. ok... so...it red.The no!yes what?! wait!! hm... ... .. …
t-shirt T-shirt black-and-white 2-year-old F-16 A-B pro- anti- x-ray 1.5-inch U.S.-based e-mail 50-50 and/or his/her N/A
w/o b/c 24/7 1/2 ½ 3/4 ¼ 2⁄3 1-1/2 10x10 3x5 a_b __ snake_case _x
5 10 3.5 1,000 .5 5. 007 -5 +5 5k 10K 1st 22nd 3D 4x4 5:30 5:30pm 8:15AM 8am 11:59:59 16:9 12/25/2010 2010-12-25 1990s
5'10" 6'2 6' 7" 72°F 50° 10% $5 $5.00 US$20 C$ £10 €20 ¥100 50¢ #1 #tag #é @user @1 5. 1..2 v2.0 192.168.0.1
555-1234 (555) 123-4567 555.123.4567 +44 20 7946 0958 10 000 000
"stop" 'stop' “stop” ‘stop’ it’s don’t ’em ’90s «oui» ``x'' 3" 'x
( ) [ ] { } (left) [right] {x} -LRB- <3 <b> </b> <a href="x"> < > << & &amp; &quot; &#39; &eacute; AT&T R&D Q&A a&b S&Ls
- -- --- – — — ; : , . ! ? !! * ** / \\ \\* | ~ ^ + = % $ ` ´
foo@bar.com john.doe@mail.example.org www.foo.com http://foo.com/bar?x=1, https://a.io foo.org Foo.com/x bbc.co.uk a.txt
:) :-) ;) :D :-( :'( =) :P :o) :/ <:) ^_^ -_- >_< (^_^) (-.-) xD o_O ♥ ☕ 😀 ❤️ ™ ®
café naïve Zürich ñandú señor 中文 日本 Москва x² 5₂ co‐op a­b
""".split()


def random_caption(rng: random.Random) -> str:
    """Words of the list, mostly with spaces between, now and then a word of odd characters."""
    out = ""
    for _ in range(rng.randint(1, 9)):
        if rng.random() < 0.08:
            out += "".join(rng.choice("aAnstdl015'’\"`.,-/:;!?()&$%#@_ é") for _ in range(rng.randint(1, 6)))
        else:
            out += rng.choice(WORDS)
        out += "" if rng.random() < 0.2 else " "
    return out.strip()


def coco_tokens(jar: Path, captions: list[str]) -> list[list[str]]:
    """What CIDEr of COCO's tools counts of each caption."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captions.txt"
        file.write_text("".join(f"{caption}\nx\n" for caption in captions), encoding="utf-8")
        command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        done = subprocess.run([*command, str(file)], capture_output=True, check=True)
    lines = done.stdout.decode("utf-8").split("\n")[: 2 * len(captions) : 2]
    kept = [[token for token in line.split(" ") if token not in PUNCTUATION] for line in lines]
    return [" ".join(tokens).split() for tokens in kept]


def main() -> None:
    """The golden, or a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jar", type=Path)
    parser.add_argument("--compare", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    rng = random.Random(arguments.seed)
    captions = [random_caption(rng) for _ in range(arguments.compare or CAPTIONS)]
    wanted = coco_tokens(arguments.jar, captions)
    if arguments.compare:
        different = [(text, want) for text, want in zip(captions, wanted, strict=True) if ptb.tokenize(text) != want]
        for text, want in different[:20]:
            print(f"{text!r}\n  Java {want}\n  ours {ptb.tokenize(text)}")
        print(f"{len(different)} of {len(captions)} captions differ")
        return
    golden = {
        "description": "Captions and what COCO's tools leave of them; made by tools/make_ptb_goldens.py",
        "implementation": "PTBTokenizer -preserveLines -lowerCase of Stanford CoreNLP 3.4.1, from pycocoevalcap 1.2",
        "cases": [{"caption": text, "tokens": " ".join(want)} for text, want in zip(captions, wanted, strict=True)],
    }
    OUTPUT.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
