"""Killed, interrupted and resumed anywhere, a run ends with the same bits as one that nothing disturbed.

Every training runs in a child process: its generators are drawn from by nothing but training. A child
stops itself at a given step, so that every trial hits the step that it names.
"""

from pathlib import Path

EPOCHS, STEPS = 3, 5
LAST = EPOCHS * STEPS
TESTS = Path(__file__).parents[1]

#: argv: folder, tests' folder, JSON of runs [{step, how, workers, options}]
CHILD = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from small_runs import MODEL, SETTINGS, small_data
from spikingmoe.config import RunOptions
from spikingmoe.train import saving
from spikingmoe.train.fit import train
from spikingmoe.train.module import TrainingModule

DATA = small_data()
MIXTURE = replace(MODEL, routing="noisy_top_k")
RECIPE = replace(SETTINGS, epochs=3, ema_decay=0.9, precision="bf16", flip=True, max_shift=2)


def one(out, plan):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = {"n": 0}
    step = TrainingModule.optimizer_step
    order = open(out / "order", "a") if plan.get("order") else None

    def optimizer_step(self, epoch, batch, *args, **kwargs):
        step(self, epoch, batch, *args, **kwargs)
        steps["n"] += 1
        if steps["n"] == plan["step"]:
            os.kill(os.getpid(), getattr(signal, plan["how"]))

    TrainingModule.optimizer_step = optimizer_step
    options = RunOptions(workers=plan["workers"], save_minutes=plan["minutes"], device="cpu")
    train(MIXTURE, RECIPE, DATA, out, resume=True, options=options)


out = Path(sys.argv[1])
for plan in json.loads(sys.argv[3]):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            one(out / plan["name"], plan)
            code = 0
        except KeyboardInterrupt:
            code = 130
        except SystemExit as stop:
            code = stop.code
        finally:
            if code == 1:
                import traceback; traceback.print_exc()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
