"""--set KEY=VALUE of the commands that train and evaluate: sizes and settings held in dataclasses."""

from dataclasses import fields

from ecg_batch.errors import UserError, clipped, suggestion


def settings(pairs: list[str], *defaults, fixed: tuple[str, ...] = ()) -> tuple:
    """The default dataclasses with `key=value` pairs put into whichever of them has the key. fixed: keys that cannot be set.

    A list may be written with commas alone: widths=64,128.
    """
    from ecg_batch.models.sizes import refuse
    from ecg_batch.settings import Written, put_over
    from ecg_batch.strict_yaml import parse_yaml

    said, changes = f"--set {clipped(' '.join(pairs))}", {}
    put_over(changes, pairs)
    known = {field.name: default for default in defaults for field in fields(default) if field.name not in fixed}
    for key, value in changes.items():
        if key not in known:
            hint = suggestion(key, known)
            raise UserError(f"{said}: unknown key '{clipped(key)}'{hint}; known keys: {', '.join(sorted(known))}")
        if isinstance(getattr(known[key], key), tuple) and not isinstance(value, list):
            changes[key], _ = parse_yaml(f"[{value}]", lambda line: said, (key,))
    given = [{key: changes[key] for key in changes if known[key] is default} for default in defaults]
    made = tuple(Written(vars(one) | put, said).checked(type(one)) for one, put in zip(defaults, given, strict=True))
    for one in made:
        refuse(one, said)
    return made
