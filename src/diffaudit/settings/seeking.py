"""Rules of how the prior is asked for a class: by an identity embedding, or by words in a prompt."""

from collections.abc import Iterator, Sequence

from diffaudit.settings.attack import Attack, LabelEmbedding, Stage
from diffaudit.settings.terms import Terms

PLACE = "{label}"


def seeking_faults(attack: Attack, embedding: LabelEmbedding, terms: Terms, stages: Sequence[Stage]) -> Iterator[str]:
    """What is wrong between prompt, label embedding, adapter and stages, a sentence each."""
    places, training = attack.prior.prompt.count(PLACE), [stage for stage in stages if stage.steps > 0]
    if attack.prior.face_id is not None:
        if embedding.kind == "textual_inversion":
            yield (
                "`attack.prior.face_id` should be left out where `embedding.kind` is textual_inversion: one of both "
                "says who is drawn. Found both."
            )
        if any("projector" in stage.trains for stage in training):
            yield (
                "`stages` should not train `projector` where `attack.prior.face_id` names an adapter, which is asked "
                "instead. Found both."
            )
    if embedding.kind != "textual_inversion":
        if places:
            yield (
                f"`attack.prior.prompt` should hold {PLACE} where `embedding.kind` is textual_inversion alone. Found "
                f"{embedding.kind}."
            )
        return
    if places != 1:
        yield (
            f"`attack.prior.prompt` should have one place {PLACE} under textual inversion, such as 'a portrait of "
            f"a {PLACE}'. Found {attack.prior.prompt!r}."
        )
    if terms.id and terms.identity_anchor != "pseudo":
        yield (
            "`terms.identity_anchor` should be 'pseudo' under textual inversion, whose vectors are no identities that "
            f"a picture could be held against. Found {terms.identity_anchor!r}."
        )
    for stage in training:
        if stage.condition != "label":
            yield (
                "`stages` should have the condition 'label' under textual inversion: a source's own identity has no "
                f"words. Found {stage.condition!r} in {stage.name}."
            )
        if "projector" in stage.trains:
            yield (
                "`stages` should not train `projector` under textual inversion, which asks none. Found it in "
                f"{stage.name}."
            )
