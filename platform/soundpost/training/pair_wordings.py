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

# Tier 2: one sentence of {content} (what each holds), {edits} and {character}.
SENTENCES: tuple[str, ...] = (
    "{content}, but {edits}; {character}",
    "{content}; the difference is that {edits}; {character}",
    "{content}, and what sets them apart is that {edits}; {character}",
    "{edits}; {content}; in character {character}",
    "{edits}, whereas {content}; {character}",
    "the two recordings differ in that {edits}; {content}; {character}",
    "what has changed is that {edits}; {content}; {character}",
    "{content}; listening closely, one finds that {edits}; {character}",
)
# The same where the edits themselves say what each holds.
BARE_SENTENCES: tuple[str, ...] = (
    "the two recordings differ in that {edits}; {character}",
    "{edits}; in character {character}",
    "what sets the two recordings apart is that {edits}; {character}",
    "one hears at once that {edits}; {character}",
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
# Said after the first recording has been told in full.
LIKEWISE: tuple[str, ...] = (
    "The scene of {y} is built the same way, from {things}",
    "The same {number} can be followed in {y}: {things}",
    "{y} holds {things} in its turn",
    "{y} is likewise made of {things}",
)

IMPRESSIONS: dict[EditKind, tuple[str, ...]] = {
    EditKind.ADDED: (
        "With it the scene may strike a listener as busier",
        "The addition gives the scene another centre of attention",
        "A listener may be drawn to the newcomer at once",
    ),
    EditKind.REMOVED: (
        "What is left may seem calmer and emptier to a listener",
        "The scene loses one of its points of attention and feels plainer",
        "A listener may sense a gap where something used to happen",
    ),
    EditKind.REPLACED: (
        "The exchange gives the scene another meaning",
        "A listener may well imagine another place because of it",
        "The setting stays, while the actor in it is another one",
    ),
    EditKind.LOUDER: (
        "It seems to step forward and claims attention",
        "A listener may feel that it has moved to the front of the scene",
        "It stands in the foreground as though one had come up to it",
    ),
    EditKind.SOFTER: (
        "It seems to step back and gives the rest some room",
        "A listener may feel that it has moved away into the distance",
        "It stands in the background as though one had drawn away from it",
    ),
    EditKind.EARLIER: (
        "The scene seems to get going without much delay",
        "The order of the scene is shifted, and a listener is drawn in at once",
    ),
    EditKind.LATER: (
        "The scene holds back for a while before it gets going",
        "The order of the scene is shifted, and a listener has to wait for it",
    ),
    EditKind.MORE: (
        "The repetition makes it seem insistent",
        "By coming back it leaves a lasting impression",
    ),
    EditKind.FEWER: (
        "It seems a passing event and hardly insists",
        "With few returns it leaves a sparse impression",
    ),
    EditKind.FASTER: (
        "It gives the scene a hurried feeling",
        "A listener may sense some urgency in it",
    ),
    EditKind.SLOWER: (
        "It gives the scene an unhurried feeling",
        "A listener may sense a certain ease in it",
    ),
    EditKind.HIGHER: (
        "It takes on a light and tense colour",
        "A listener may find it thin and alert",
    ),
    EditKind.LOWER: (
        "It takes on a heavy and calm colour",
        "A listener may find it large and settled",
    ),
    EditKind.BAND_BOOST: (
        "The colour of the sound is altered while the events are untouched",
        "It seems as though a tone control had been turned",
    ),
    EditKind.BAND_CUT: (
        "The colour of the sound is altered while the events are untouched",
        "It seems as though a tone control had been turned",
    ),
    EditKind.REVERB_MORE: (
        "The listener seems to stand in a large room with hard walls",
        "The events seem to blur into each other and to move away",
    ),
    EditKind.REVERB_LESS: (
        "The listener seems to stand close by in a small, furnished room",
        "The events seem to stand apart and to move near",
    ),
    EditKind.NOISE_MORE: (
        "A listener may feel that a veil lies over the scene",
        "It seems as though a poor microphone had been used",
    ),
    EditKind.NOISE_LESS: (
        "A listener may feel that a veil has been taken off the scene",
        "It seems as though a good microphone had been used",
    ),
}
NO_IMPRESSIONS: tuple[str, ...] = (
    "A listener would take one for the other",
    "Whoever hears them in turn would believe to hear a single take",
    "No event is out of place, and the scene leaves one and the same impression",
    "Neither the events nor the way in which they follow each other give any hint",
)
CLOSINGS: tuple[str, ...] = (
    "Nothing else sets the two apart",
    "Apart from this the scene is untouched",
    "The rest of the scene is as it was",
    "All else seems left as it was",
)
CLOSINGS_OF_DIFFERENT: tuple[str, ...] = (
    "The two were plainly taken in different places",
    "A listener would hardly think of one place when hearing them in turn",
    "Each of them tells a story of its own",
    "The two scenes could hardly be confused",
)
