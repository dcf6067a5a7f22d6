"""What the labels of the training clips are called: their own words, synonyms, descriptions.

None of these is used to measure (soundpost.evaluation.paraphrases holds other wordings).
"""

from __future__ import annotations

# The first wording is the label prompt of the evaluation: the label itself, in plain words.
WORDINGS: dict[str, tuple[str, ...]] = {
    "dog": ("dog", "a dog barks", "barking dog", "dog growling"),
    "rooster": ("rooster", "a rooster crows", "rooster crow"),
    "pig": ("pig", "a pig oinks", "pigs grunting"),
    "cow": ("cow", "a cow moos", "cows in a barn"),
    "frog": ("frog", "frogs croak", "a frog calls"),
    "cat": ("cat", "a cat meows", "cat crying"),
    "hen": ("hen", "a hen clucks", "hens and chickens"),
    "insects": ("insects", "an insect buzzes", "flying insects buzz"),
    "sheep": ("sheep", "a sheep bleats", "sheep baaing"),
    "crow": ("crow", "a crow caws", "crows calling"),
    "rain": ("rain", "rain falls", "raining hard", "light rain"),
    "sea_waves": ("sea waves", "waves crash on the beach", "ocean waves"),
    "crackling_fire": ("crackling fire", "a fire crackles", "wood fire"),
    "crickets": ("crickets", "crickets chirp", "a cricket at night"),
    "chirping_birds": ("chirping birds", "birds sing", "a bird chirps", "bird song"),
    "water_drops": ("water drops", "water drips", "dripping water"),
    "wind": ("wind", "wind blows", "strong wind", "wind noise"),
    "pouring_water": ("pouring water", "water is poured", "pouring a drink"),
    "toilet_flush": ("toilet flush", "a toilet is flushed", "flushing toilet"),
    "thunderstorm": ("thunderstorm", "thunder", "thunder rumbles", "a storm with thunder"),
    "crying_baby": ("crying baby", "a baby cries", "baby crying loudly"),
    "sneezing": ("sneezing", "a person sneezes", "a sneeze"),
    "clapping": ("clapping", "people clap", "hand claps"),
    "breathing": ("breathing", "a person breathes", "heavy breath"),
    "coughing": ("coughing", "a person coughs", "a cough"),
    "footsteps": ("footsteps", "a person walks", "steps on the ground"),
    "laughing": ("laughing", "a person laughs", "people laughing", "laughter"),
    "brushing_teeth": ("brushing teeth", "a person brushes their teeth", "tooth brushing"),
    "snoring": ("snoring", "a person snores", "a snore"),
    "drinking_sipping": ("drinking, sipping", "a person sips a drink", "drinking"),
    "door_wood_knock": ("door knock", "knocking on a wooden door", "a person knocks on a door"),
    "mouse_click": ("mouse click", "clicking a computer mouse", "a mouse is clicked"),
    "keyboard_typing": ("keyboard typing", "a person types on a keyboard", "typing"),
    "door_wood_creaks": ("creaking wooden door", "a door creaks", "door creak"),
    "can_opening": ("can opening", "a can is opened", "opening a drink can"),
    "washing_machine": ("washing machine", "a washing machine runs", "washer"),
    "vacuum_cleaner": ("vacuum cleaner", "a vacuum cleaner runs", "vacuuming"),
    "clock_alarm": ("alarm clock", "an alarm clock rings", "alarm clock beeping"),
    "clock_tick": ("ticking clock", "a clock ticks", "clock ticking"),
    "glass_breaking": ("glass breaking", "glass breaks", "breaking glass"),
    "helicopter": ("helicopter", "a helicopter flies", "helicopter rotor"),
    "chainsaw": ("chainsaw", "a chainsaw cuts wood", "chain saw"),
    "siren": ("siren", "a siren wails", "emergency siren", "police siren"),
    "car_horn": ("car horn", "a car honks", "car horns", "vehicle horn"),
    "engine": ("engine", "an engine runs", "engine noise"),
    "train": ("train", "a train passes", "train on tracks"),
    "church_bells": ("church bells", "church bells ring", "bells"),
    "airplane": ("airplane", "an airplane flies", "plane"),
    "fireworks": ("fireworks", "fireworks explode", "fireworks display"),
    "hand_saw": ("hand saw", "sawing wood by hand", "a saw cuts wood"),
    "air_conditioner": ("air conditioner", "an air conditioner hums", "air conditioning"),
    "children_playing": ("children playing", "children shout and play", "kids playing outside"),
    "dog_bark": ("dog bark", "a dog barks", "barking dog"),
    "drilling": ("drilling", "a drill runs", "power drill"),
    "engine_idling": ("engine idling", "an engine idles", "idling car engine"),
    "gun_shot": ("gun shot", "a gun is fired", "gunfire"),
    "jackhammer": ("jackhammer", "a jackhammer breaks concrete", "pneumatic hammer"),
    "street_music": ("street music", "musicians play in the street", "music playing outside"),
    "speech": ("speech", "a person speaks", "someone talking", "a spoken word"),
    "drone": ("drone", "a drone flies", "quadcopter"),
    "uav": ("drone", "a drone hovers", "propellers of a drone"),
    "motor": ("electric motor", "a small motor runs", "motor whine"),
}

# The AudioSet classes that a label stands for: their names and descriptions are its wordings too.
ONTOLOGY_CLASSES: dict[str, tuple[str, ...]] = {
    "dog": (
        "Dog",
        "Bark",
        "Yip",
        "Howl",
        "Bow-wow",
        "Growling",
        "Whimper (dog)",
    ),
    "rooster": (
        "Crowing, cock-a-doodle-doo",
        "Chicken, rooster",
    ),
    "pig": (
        "Pig",
        "Oink",
    ),
    "cow": (
        "Cattle, bovinae",
        "Moo",
    ),
    "frog": (
        "Frog",
        "Croak",
    ),
    "cat": (
        "Cat",
        "Meow",
        "Purr",
        "Caterwaul",
    ),
    "hen": (
        "Chicken, rooster",
        "Cluck",
        "Fowl",
    ),
    "insects": (
        "Insect",
        "Fly, housefly",
        "Buzz",
        "Bee, wasp, etc.",
        "Mosquito",
    ),
    "sheep": (
        "Sheep",
        "Bleat",
        "Goat",
    ),
    "crow": (
        "Crow",
        "Caw",
    ),
    "rain": (
        "Rain",
        "Raindrop",
        "Rain on surface",
    ),
    "sea_waves": (
        "Waves, surf",
        "Ocean",
    ),
    "crackling_fire": (
        "Fire",
        "Crackle",
    ),
    "crickets": ("Cricket",),
    "chirping_birds": (
        "Bird",
        "Bird vocalization, bird call, bird song",
        "Chirp, tweet",
    ),
    "water_drops": (
        "Drip",
        "Water",
    ),
    "wind": (
        "Wind",
        "Wind noise (microphone)",
        "Howl (wind)",
    ),
    "pouring_water": (
        "Pour",
        "Fill (with liquid)",
        "Liquid",
    ),
    "toilet_flush": ("Toilet flush",),
    "thunderstorm": (
        "Thunderstorm",
        "Thunder",
    ),
    "crying_baby": (
        "Baby cry, infant cry",
        "Crying, sobbing",
    ),
    "sneezing": ("Sneeze",),
    "clapping": (
        "Clapping",
        "Applause",
    ),
    "breathing": (
        "Breathing",
        "Gasp",
        "Pant",
    ),
    "coughing": (
        "Cough",
        "Throat clearing",
    ),
    "footsteps": (
        "Walk, footsteps",
        "Run",
    ),
    "laughing": (
        "Laughter",
        "Giggle",
        "Chuckle, chortle",
        "Belly laugh",
    ),
    "brushing_teeth": ("Toothbrush",),
    "snoring": (
        "Snoring",
        "Snort",
    ),
    "drinking_sipping": (
        "Liquid",
        "Gurgling",
    ),
    "door_wood_knock": (
        "Knock",
        "Tap",
    ),
    "mouse_click": ("Clicking",),
    "keyboard_typing": (
        "Typing",
        "Computer keyboard",
    ),
    "door_wood_creaks": (
        "Creak",
        "Squeak",
    ),
    "can_opening": (),
    "washing_machine": ("Mechanisms",),
    "vacuum_cleaner": ("Vacuum cleaner",),
    "clock_alarm": (
        "Alarm clock",
        "Beep, bleep",
        "Buzzer",
    ),
    "clock_tick": (
        "Tick",
        "Tick-tock",
        "Clock",
    ),
    "glass_breaking": (
        "Glass",
        "Shatter",
        "Breaking",
    ),
    "helicopter": ("Helicopter",),
    "chainsaw": ("Chainsaw",),
    "siren": (
        "Siren",
        "Police car (siren)",
        "Ambulance (siren)",
        "Fire engine, fire truck (siren)",
        "Civil defense siren",
    ),
    "car_horn": (
        "Vehicle horn, car horn, honking",
        "Toot",
        "Air horn, truck horn",
    ),
    "engine": (
        "Engine",
        "Idling",
        "Engine starting",
        "Medium engine (mid frequency)",
        "Accelerating, revving, vroom",
    ),
    "train": (
        "Train",
        "Rail transport",
        "Train horn",
        "Train whistle",
        "Railroad car, train wagon",
    ),
    "church_bells": (
        "Church bell",
        "Bell",
        "Chime",
    ),
    "airplane": (
        "Aircraft",
        "Fixed-wing aircraft, airplane",
        "Jet engine",
        "Aircraft engine",
    ),
    "fireworks": (
        "Fireworks",
        "Firecracker",
        "Explosion",
    ),
    "hand_saw": ("Sawing",),
    "air_conditioner": (
        "Air conditioning",
        "Mechanical fan",
    ),
    "children_playing": (
        "Children playing",
        "Children shouting",
    ),
    "dog_bark": (
        "Bark",
        "Dog",
        "Yip",
    ),
    "drilling": (
        "Drill",
        "Power tool",
    ),
    "engine_idling": (
        "Idling",
        "Engine",
    ),
    "gun_shot": (
        "Gunshot, gunfire",
        "Machine gun",
        "Fusillade",
    ),
    "jackhammer": ("Jackhammer",),
    "street_music": (
        "Music",
        "Musical instrument",
    ),
    "speech": (
        "Speech",
        "Male speech, man speaking",
        "Female speech, woman speaking",
    ),
    "drone": ("Propeller, airscrew",),
    "uav": ("Propeller, airscrew",),
    "motor": ("Mechanisms",),
}

# Labels that name the same sound: neither is a wrong answer for the other.
SAME_SOUND: tuple[frozenset[str], ...] = (
    frozenset({"dog", "dog_bark"}),
    frozenset({"engine", "engine_idling"}),
    frozenset({"engine", "motor"}),
    frozenset({"drone", "uav", "motor"}),
    frozenset({"rooster", "hen"}),
    frozenset({"rain", "thunderstorm"}),
    frozenset({"crickets", "insects"}),
    frozenset({"laughing", "children_playing"}),
    frozenset({"speech", "children_playing"}),
    frozenset({"drilling", "jackhammer"}),
)

TEMPLATES: tuple[str, ...] = (
    "{}",
    "{}",
    "the sound of {}",
    "a recording of {}",
    "{} can be heard",
    "{} in the background",
    "this is a sound of {}",
    "{} nearby",
    "I hear {}",
    "audio of {}",
)


def label_prompt(label: str) -> str:
    """Return the one text prompt by which the evaluation names a label."""
    return WORDINGS[label][0]


def clip_label(dataset: str, label: str) -> str:
    """Name what a clip sounds like: some datasets label a state, not a sound."""
    return dataset if dataset in {"uav", "motor"} else label
