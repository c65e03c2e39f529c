"""The axis legend: what the letters in shapes and in variable suffixes mean.

    T  time steps        B  batch             N  tokens (height x width, row by row)
    D  channels          H  heads             E  experts
    K  experts chosen    F  expert width      M  prompt width
    C  image channels    R  relay cells' channels

Sequences are (T, B, N, D), gates and scores (T, B, N, E), images (B, C, height, width), event
frames (T, B, C, height, width). A suffix such as `spikes_TBND` names the axes of a tensor.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

Frames = Float[Tensor, "frames B C height width"]  # 1 frame for a still image, else T
Maps = Float[Tensor, "frames B height width C"]  # channels last
Convolved = Float[Tensor, "steps B height_out width_out C_out"]
Tokens = Float[Tensor, "T B N D"]
Gates = Float[Tensor, "T B N E"]
Prompt = Float[Tensor, "T B M"]
Logits = Float[Tensor, "B classes"]
Scores = Float[Tensor, "*rows E"]
Load = Float[Tensor, " E"]
Channels = Float[Tensor, " channels"]  # of a router's scores: E, with groups G + E
ScoresOfGroups = Float[Tensor, "*rows channels"]
