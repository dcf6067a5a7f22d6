"""Wordings of the reference texts of pairs: openings, links, impressions, and the prompts."""

from __future__ import annotations

from soundpost.training.pair_records import EditKind

# What a model is asked by, a tier each; never the words of the paper.
PROMPTS: dict[int, tuple[str, ...]] = {
    1: (
        "What differs between the two recordings? Answer briefly.",
        "Name the difference in a few words.",
        "State in short what has changed between audio 1 and audio 2.",
        "Tell the two recordings apart, concisely.",
    ),
    2: (
        "Describe in one long sentence how the two recordings differ.",
        "Compare audio 1 and audio 2 in a single sentence.",
        "Put the difference between the recordings into one full sentence.",
        "Say in one sentence what each recording holds and what sets them apart.",
    ),
    3: (
        "Compare the two recordings in a paragraph, with every detail.",
        "Describe at length how audio 1 and audio 2 differ.",
        "Write a full account of both recordings and of what sets them apart.",
        "Explain the difference thoroughly: sounds, their order, their character.",
    ),
}
CAPTION_PROMPTS: dict[int, tuple[str, ...]] = {
    1: ("Describe audio 1 alone.", "What is heard in the first recording?", "Caption audio 1."),
    2: ("Describe audio 2 alone.", "What is heard in the second recording?", "Caption audio 2."),
    3: ("Describe each recording.", "What is heard in audio 1 and in audio 2?", "Caption both."),
}

# Tier 2: one sentence of {content} (what each holds), {edits}, and what the sounds are like, as a
# statement ({character}) or an addition ({with}, or {shared} before the edits are told).
SENTENCES: tuple[str, ...] = (
    "{content}, but {edits}; {character}",
    "{content}, but {edits}, {with}",
    "{content}; the difference is that {edits}, {with}",
    "{content}, and what sets them apart is that {edits}; {character}",
    "{content}, {shared}, but {edits}",
    "{content}, {shared}; what has changed is that {edits}",
    "{edits}; {content}, {with}",
    "{edits}, whereas {content}; {character}",
    "{edits}, whereas {content}, {with}",
    "the two recordings differ in that {edits}; {content}, {with}",
    "the two recordings differ in that {edits}; {content}; {character}",
    "what has changed is that {edits}; {content}, {with}",
    "{content}; listening closely, one finds that {edits}; {character}",
    "although {content}, {edits}; {character}",
)
# The same where the edits themselves say what each holds.
BARE_SENTENCES: tuple[str, ...] = (
    "the two recordings differ in that {edits}, {with}",
    "the two recordings differ in that {edits}; {character}",
    "{edits}; {character}",
    "{edits}, {with}",
    "what sets the two recordings apart is that {edits}; {character}",
    "one hears at once that {edits}, {with}",
)
# Added where a sentence is short.
ADDITIONS: tuple[str, ...] = (
    "; nothing else sets the two apart",
    "; apart from this the scene is untouched",
    "; all else seems left as it was",
)
EDIT_LEADS: tuple[str, ...] = (
    "The difference is that {}",
    "What sets them apart is that {}",
    "What has changed is that {}",
    "A listener can hear that {}",
    "Listening closely, one finds that {}",
    "{}",
    "{}",
    "{}",
)
SECOND_LEADS: tuple[str, ...] = ("Besides, {}", "Moreover, {}", "In addition, {}", "{}")
# Tier 3, where the second recording holds the same sounds in the same order.
LIKEWISE: tuple[str, ...] = (
    "{x} follows the same course",
    "{x} is built in the same way",
    "the course of {x} is just like it",
    "in {x} the events follow each other in the same order",
)

# {the} is the sound of the edit, {x} the second recording.
IMPRESSIONS: dict[EditKind, tuple[str, ...]] = {
    EditKind.ADDED: (
        "With it the scene may strike a listener as busier",
        "The addition lends the scene another centre of attention",
        "A listener may be drawn to the newcomer at once",
    ),
    EditKind.REMOVED: (
        "What is left may seem calmer and emptier to a listener",
        "The scene loses one of its points of attention and feels plainer",
        "A listener may sense a gap where something used to happen",
    ),
    EditKind.REPLACED: (
        "The exchange lends the scene another meaning",
        "A listener may well imagine another place because of it",
        "The setting stays, while the actor in it is another one",
    ),
    EditKind.LOUDER: (
        "in {x} {the} {seems} to step forward and to claim attention",
        "A listener may feel that in {x} {the} {has} moved to the front",
        "in {x} {the} {stands} in the foreground, as though one had come near",
    ),
    EditKind.SOFTER: (
        "in {x} {the} {seems} to step back and to make room for the rest",
        "A listener may feel that in {x} {the} {has} moved away into the distance",
        "in {x} {the} {stands} in the background, as though one had gone away",
    ),
    EditKind.EARLIER: (
        "in {x} {the} {comes} without much delay",
        "The order of the scene is shifted, and {the} of {x} {draws} the listener in without delay",
    ),
    EditKind.LATER: (
        "in {x} {the} {comes} after some waiting",
        "The order of the scene is shifted, and a listener has to wait for {the} of {x}",
    ),
    EditKind.MORE: (
        "The repetition makes {the} of {x} seem insistent",
        "By coming back {the} of {x} {leaves} a lasting impression",
    ),
    EditKind.FEWER: (
        "in {x} {the} {seems} a passing event that hardly insists",
        "With few returns {the} of {x} {leaves} a sparse impression",
    ),
    EditKind.FASTER: (
        "in {x} {the} {lends} the scene a hurried feeling",
        "A listener may sense some urgency in {the} of {x}",
    ),
    EditKind.SLOWER: (
        "in {x} {the} {lends} the scene an unhurried feeling",
        "A listener may sense a certain ease in {the} of {x}",
    ),
    EditKind.HIGHER: (
        "in {x} {the} {takes} on a light and tense colour",
        "A listener may find {the} of {x} thin and alert",
    ),
    EditKind.LOWER: (
        "in {x} {the} {takes} on a heavy and calm colour",
        "A listener may find {the} of {x} large and settled",
    ),
    EditKind.BAND_BOOST: (
        "The colour of the sound is altered while the events are untouched",
        "One might think that a tone control had been turned",
    ),
    EditKind.BAND_CUT: (
        "The colour of the sound is altered while the events are untouched",
        "One might think that a tone control had been turned",
    ),
    EditKind.REVERB_MORE: (
        "In {x} the listener seems to stand in a large room with hard walls",
        "The events of {x} seem to blur into each other and to move away",
    ),
    EditKind.REVERB_LESS: (
        "In {x} the listener seems to stand close by in a small, furnished room",
        "The events of {x} seem to stand apart and to move near",
    ),
    EditKind.NOISE_MORE: (
        "A listener may feel that a veil lies over {x}",
        "One might think that a poor microphone had been used for {x}",
    ),
    EditKind.NOISE_LESS: (
        "A listener may feel that a veil has been taken off {x}",
        "One might think that a good microphone had been used for {x}",
    ),
}
# The same of an edit of the whole recording.
WHOLE_IMPRESSIONS: dict[EditKind, tuple[str, ...]] = {
    EditKind.LOUDER: (
        "With {x} the listener seems to have come near",
        "{x} seems to claim attention as a whole",
    ),
    EditKind.SOFTER: (
        "With {x} the listener seems to have moved away",
        "{x} seems to hold back as a whole",
    ),
    EditKind.HIGHER: (
        "{x} takes on a light and tense colour",
        "A listener may find {x} thin and alert",
    ),
    EditKind.LOWER: (
        "{x} takes on a heavy and calm colour",
        "A listener may find {x} large and settled",
    ),
    EditKind.FASTER: ("{x} leaves a hurried feeling",),
    EditKind.SLOWER: ("{x} leaves an unhurried feeling",),
}
NO_IMPRESSIONS: tuple[str, ...] = (
    "A listener would take one for the other",
    "Whoever hears them in turn would think of a single take",
    "No event is out of place, and the scene leaves one and the same impression",
    "Neither the events nor the way in which they follow each other give any hint",
)
CLOSINGS: tuple[str, ...] = (
    "Nothing else sets the two apart",
    "Apart from this the scene is untouched",
    "The rest of the scene is as it was",
    "All else seems left as it was",
)
# Where a sound lies in a recording: from its beginning, from the middle, towards the end.
PLACES: tuple[tuple[str, ...], ...] = (
    ("in {x} {the} {is} there from the start", "in {x} {the} {is} among what comes first"),
    ("in {x} {the} {sets} in after a while", "in {x} {the} {comes} when some time has passed"),
    ("in {x} {the} {comes} towards the end", "in {x} {the} {sets} in near the end"),
)
SCENE_IMPRESSIONS: tuple[str, ...] = (
    "The scene as such is easy to follow",
    "Taken by itself the scene seems ordinary and believable",
    "Heard in turn, the two leave related but distinct impressions",
    "A listener who knows the first would notice the change in the second",
)
CLOSINGS_OF_DIFFERENT: tuple[str, ...] = (
    "The two were plainly taken in different places",
    "A listener would hardly think of one place when hearing them in turn",
    "Each of them tells a story of its own",
    "The two scenes could hardly be confused",
)
