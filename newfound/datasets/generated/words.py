"""Words that generated items are made of: a topic's own, an aspect's own, and those of everybody.

An interest is an aspect of a topic; topics are its branches.
"""

from __future__ import annotations

from typing import Final

TOPICS: Final[dict[str, str]] = {
    "cooking": "recipe kitchen sauce oven pasta chef flavour dinner knife spice",
    "football": "goal striker penalty league keeper derby tackle stadium header club",
    "gardening": "seed soil pruning tomato greenhouse compost rose hedge harvest lawn",
    "space": "rocket orbit planet telescope galaxy astronaut comet launch lunar asteroid",
    "jazz": "saxophone trumpet swing quartet improvisation solo blues standard piano drummer",
    "chess": "opening endgame gambit checkmate bishop pawn grandmaster blunder castling queen",
    "travel": "island hostel backpack airport itinerary visa museum beach train border",
    "cycling": "peloton gears climb helmet saddle sprint gravel wheel chain ride",
    "knitting": "yarn needle stitch cardigan wool crochet pattern scarf purl cable",
    "photography": "lens shutter portrait exposure tripod aperture darkroom landscape focus flash",
    "dogs": "puppy leash terrier kennel bark fetch retriever obedience collar walk",
    "cars": "engine gearbox turbo rally coupe brake garage piston racing tyre",
    "fitness": "squat dumbbell cardio stretching protein workout plank muscle pushup warmup",
    "history": "empire battle medieval dynasty archive treaty ruins king revolution parchment",
    "programming": "compiler function debugging script database loop terminal algorithm recursion commit",
    "fishing": "trout bait reel salmon river lure angler pike boat hook",
    "fashion": "dress sneaker runway denim jacket tailor silk handbag outfit collection",
    "makeup": "lipstick eyeliner foundation blush mascara palette skincare brush contour glow",
    "horror": "ghost haunted zombie slasher curse vampire nightmare scream cellar monster",
    "romance": "wedding kiss heartbreak proposal sweetheart letter longing couple affair valentine",
    "comedy": "sketch prank standup parody punchline roast clown sitcom improv gag",
    "science": "experiment molecule laboratory physics microscope neuron genome reaction theory crystal",
    "economics": "inflation market stocks budget trade interest bank tax currency crisis",
    "painting": "canvas watercolour easel fresco sketchbook pigment gallery impressionist brushstroke mural",
    "hiking": "trail summit ridge tent boots waterfall compass valley glacier campfire",
    "sailing": "yacht anchor mast harbour regatta knot keel jib tide skipper",
    "baking": "sourdough cake flour cupcake icing pastry croissant dough muffin meringue",
    "cats": "kitten whisker purr litter tabby paw meow siamese scratching nap",
    "robots": "servo drone sensor android circuit automation gripper actuator firmware swarm",
    "puzzles": "jigsaw riddle sudoku maze crossword brainteaser cube logic escape cipher",
    "farming": "tractor cattle barn wheat plough dairy orchard sheep silo irrigation",
    "theatre": "stage rehearsal playwright curtain monologue costume musical audience prop drama",
    "surfing": "wave board reef swell barrel wetsuit paddle shore longboard break",
    "language": "grammar vowel vocabulary accent dialect translation idiom phrase alphabet fluent",
    "architecture": "facade skyscraper arch blueprint column cathedral dome concrete loft bridge",
    "parenting": "toddler bedtime stroller diaper playground nursery tantrum lullaby crib teething",
    "crime": "detective murder alibi heist witness forensic prison suspect gangster verdict",
    "fantasy": "dragon wizard sword elf quest castle sorcery goblin prophecy realm",
    "tennis": "racket serve backhand volley baseline tiebreak clay umpire forehand smash",
    "coffee": "espresso barista roast latte grinder aroma crema beans filter cappuccino",
}
ASPECTS: Final[dict[str, str]] = {
    "for beginners": "basics beginner starter simple",
    "vintage": "vintage antique retro nostalgic",
    "in winter": "winter snow frozen icy",
    "on a budget": "cheap budget bargain thrifty",
    "by professionals": "expert professional masterclass advanced",
    "for children": "kids playful tiny schoolyard",
    "documentaries": "documentary untold archive footage",
    "in the city": "urban downtown rooftop subway",
    "news": "breaking update headline weekly",
    "reviews": "review verdict rated comparison",
    "competitions": "tournament champion finals contest",
    "gone wrong": "fail disaster accident mistake",
    "by the sea": "coastal seaside ocean harbour",
    "stories": "memoir confession diary journey",
    "tools": "gear equipment toolkit gadget",
    "tricks": "trick hack secret shortcut",
    "in space age": "futuristic neon cosmic android",
    "live": "live concert session encore",
    "at night": "midnight moonlight nocturnal lantern",
    "of the world": "global foreign continental exotic",
}
COMMON: Final = "a the my new best big how to with and for great little first last one day time way good old real easy"
SYLLABLES: Final = "ba ce di fo gu ha ji ka lo mi ne pa qui ro su ta ve wo xa yo za bri cla dre fli gro"
