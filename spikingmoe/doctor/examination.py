"""All checks, in the order of the table."""

from __future__ import annotations

from spikingmoe.doctor import device, kernels, limits, packages, storage
from spikingmoe.doctor.check import Check, guarded
from spikingmoe.doctor.child import Answer, finish, start

TIME_LIMIT_S = 120.0
BUILD_LIMIT_S = 400.0  # compiling the kernels may take minutes on a busy machine


def examine(*, data_dir: str = "", thorough: bool = False) -> list[Check]:
    """Look at everything; no exception whatever is broken.

    Args:
        data_dir: where data are looked for, instead of the usual place.
        thorough: import every package, and build the kernels.
    """
    lava, others = packages.modules_to_try(thorough=thorough)
    children = [
        start("spikingmoe.doctor.torch_facts", data_dir, "build" if thorough else "", *others),
        start("spikingmoe.doctor.imports", *lava),
    ]
    checks = [
        *guarded("limits", "limits", limits.limit_checks),
        *guarded(storage.TOPIC, "folders", storage.storage_checks),
        *guarded(storage.TOPIC, "bundled checkpoints", storage.checkpoint_checks),
    ]
    limit = BUILD_LIMIT_S if thorough else TIME_LIMIT_S
    asked, second = (finish(child, limit) for child in children)
    imported = {**packages.read_imports(asked, others), **packages.read_imports(second, lava)}
    return [
        packages.python_check(),
        *guarded(packages.TOPIC, "packages", lambda: packages.package_checks(imported)),
        *guarded(
            device.TOPIC,
            "device",
            lambda: device.device_checks(device.cpu_flags(), _part(asked, "torch")),
        ),
        *guarded(kernels.TOPIC, "kernels", lambda: kernels.kernel_checks(_part(asked, "kernels"))),
        *checks,
        *guarded(storage.TOPIC, "data", lambda: storage.data_checks(_part(asked, "data"))),
    ]


def _part(answer: Answer, name: str) -> dict:
    if name in answer.found:
        return answer.found[name]
    return {"error": answer.failure} if answer.failure else {}
