"""How the page looks, and the colours that pictures share. Dark on white; no fonts are fetched."""

from __future__ import annotations

import colorsys

#: Okabe and Ito 2008: told apart by colour-blind readers too.
EXPERT_COLOURS = (
    "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#b8ad00", "#8c8c8c",
)  # fmt: skip
ON_COLOUR, OFF_COLOUR, PROMPT_COLOUR = "#d9304f", "#2f7de1", "#8a63d2"
GROUP_COLOURS = {
    "stem": "#6f86a0",
    "prompt": ON_COLOUR,
    "mixing": "#3f8fb5",
    "attention": PROMPT_COLOUR,
    "router": "#0f9d8a",
    "experts": "#c07a1c",
    "head": "#4f7f3a",
    "other": "#8c8c8c",
}


def expert_colour(expert: int) -> str:
    """A colour per expert; beyond the palette, hues a golden angle apart."""
    if expert < len(EXPERT_COLOURS):
        return EXPERT_COLOURS[expert]
    red, green, blue = colorsys.hls_to_rgb(expert * 0.381966 % 1.0, 0.5, 0.55)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


#: Beside the colours of the groups; a router must be told from the experts that stand around it.
PART_COLOURS = {"router": "#4a4a68", "input": "#c9ced6", "residual": "#a58a6f", "mlp": "#c07a1c"}


def part_colour(part: str) -> str:
    """Of a part of the network, such as "stem" or "experts.2"."""
    root, _, index = part.partition(".")
    if index.isdecimal():
        return expert_colour(int(index))
    return PART_COLOURS.get(root) or GROUP_COLOURS.get(root, GROUP_COLOURS["other"])


CSS = """
:root{color-scheme:light;--back:#fff;--card:#fff;--ink:#1d232b;--soft:#4a5560;--line:#d9dce1;
--cell:#eef0f3;--accent:#3b6ea8;--good:#1e7d4a;--bad:#b3261e;--warn:#8a5a00}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,sans-serif;
overflow-wrap:break-word}
main{max-width:1180px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:.4em 0 .2em}h2{font-size:1.3rem;margin:0 0 .5em}
h3{font-size:1.05rem;margin:1.5em 0 .4em}h4{font-size:.95rem;margin:1em 0 .3em}
p{margin:.4em 0;max-width:76ch}code,.mono{font-family:ui-monospace,monospace;font-size:.92em}
.soft,caption,.note{color:var(--soft);font-size:.9rem}a{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:14px 0;font-size:.92rem}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:18px;margin:16px 0}
ul.findings{list-style:none;padding:0;margin:.6em 0}
ul.findings li{border-left:4px solid var(--line);padding:.2em 0 .2em .8em;margin:.55em 0;max-width:88ch}
li.good{border-color:var(--good)!important}li.bad{border-color:var(--bad)!important}
li.warn{border-color:var(--warn)!important}.missing{color:var(--soft);font-style:italic}
.scroll{overflow-x:auto;margin:.6em 0;max-width:100%}
table{border-collapse:collapse;font-size:.92rem}caption{text-align:left;padding:.2em 0;max-width:76ch}
th,td{padding:.32em .8em .32em 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);
font-variant-numeric:tabular-nums}thead th{color:var(--soft);font-weight:600;font-size:.85rem}
tbody th{font-weight:500}.wide td,.wide th{min-width:9ch}.heat{display:block;text-align:center;padding:.05em .6em;border-radius:3px;min-width:4.5em}
.columns{display:flex;flex-wrap:wrap;gap:8px 36px}.columns>*{flex:1 1 300px;min-width:0}
.bars{display:grid;grid-template-columns:fit-content(var(--names,11em)) minmax(40px,1fr) auto;
gap:.22em .7em;align-items:center;font-size:.88rem;margin:.3em 0}.bar{display:contents}
.bar .name{overflow-wrap:anywhere;line-height:1.25}.bar .value{white-space:nowrap;font-variant-numeric:tabular-nums}
.track{position:relative;height:.9em;background:var(--cell);border-radius:2px}
.fill{position:absolute;inset:0 auto 0 0;background:var(--accent);border-radius:2px}
.band{position:absolute;top:calc(50% - 1px);height:3px;background:var(--ink);
border-inline:2px solid var(--ink);min-width:2px}
.mark{position:absolute;top:-2px;bottom:-2px;border-left:2px dashed var(--ink)}
.rates{columns:440px 2;column-gap:36px}.rates>*{break-inside:avoid}.rates h4{margin-top:.6em}
.rates .bars{grid-template-columns:minmax(0,16.5em) minmax(50px,1fr) 4em}
.parts .bars{grid-template-columns:minmax(0,7em) minmax(50px,1fr) 5em}
.maps{display:flex;flex-wrap:wrap;gap:10px 14px;align-items:flex-end;margin:.3em 0 .8em}
.wider>*{flex-basis:520px}.grid4{display:grid;grid-template-columns:repeat(4,minmax(0,136px));gap:10px;margin:.3em 0 .8em}
.grid4 svg{width:100%}.over{background:#000 var(--photo) 0 0/100% 100%;image-rendering:pixelated}
.picks img{margin:0 auto}figure{margin:0}figcaption{font-size:.82rem;color:var(--soft)}
img,svg image{image-rendering:pixelated}svg{display:block;max-width:100%;height:auto}
.scroll svg{max-width:none}svg text{fill:var(--ink);font:11px system-ui,sans-serif}
svg text.dim{fill:var(--soft)}svg text.id{fill:#fff;font-weight:700;paint-order:stroke;stroke:#000a;
stroke-width:2px;text-anchor:middle}
.line{stroke:var(--line)}.cell{fill:var(--cell)}.none{fill:none;stroke:var(--soft);stroke-dasharray:3 2}
.px{display:block;background:var(--cell);border:1px solid var(--line)}
.photo{background:#000}.key{display:inline-flex;align-items:center;gap:.4em;margin-right:1em}
.key i{width:.9em;height:.9em;border-radius:2px;display:inline-block}
.pick{position:absolute;opacity:0;pointer-events:none}
.picks{display:flex;flex-wrap:wrap;gap:8px;margin:.6em 0}
.picks label{cursor:pointer;border:2px solid var(--line);border-radius:6px;padding:5px 7px;
font-size:.8rem;text-align:center}
.sample{display:none}.wrong{color:var(--bad);font-weight:600}.right{color:var(--good)}
.runpick{position:absolute;opacity:0;pointer-events:none}.run{display:none}
.runnames{display:flex;flex-wrap:wrap;align-items:center;gap:8px;position:sticky;top:0;z-index:2;background:var(--back);padding:8px 0}
.runnames label{cursor:pointer;border:2px solid var(--line);border-radius:6px;padding:4px 10px;background:var(--card)}
.plot{margin:.8em 0;max-width:100%}.plot .drawing{max-width:100%;overflow-x:auto}
.plot .drawing.vega-embed{display:flex;flex-direction:column}.wideplot .drawing.vega-embed{width:100%}
.plot .vega-bindings{order:-1;display:flex;flex-wrap:wrap;gap:4px 16px;margin-bottom:6px;font-size:.88rem}
.plot .vega-bind{display:flex;flex-wrap:wrap;align-items:center;gap:6px;max-width:100%}
.plot .vega-bind-name{color:var(--soft)}.plot .vega-bind label{display:flex;flex-wrap:wrap;align-items:center;gap:6px}
.plot select,.plot input{font:inherit;color:var(--ink);background:var(--card);max-width:100%;accent-color:var(--accent)}
.plot select{border:1px solid var(--line);border-radius:5px;padding:3px 6px}
.plot .role-axis-grid line{stroke:var(--line)!important}.plot .role-axis-domain line,.plot .role-axis-tick line{stroke:var(--soft)!important}
#vg-tooltip-element.vg-tooltip{background:var(--card)!important;color:var(--ink)!important;border-color:var(--line)!important}
#vg-tooltip-element td.key{color:var(--soft)!important}
details{margin:.6em 0}summary{cursor:pointer;color:var(--accent)}
@media(max-width:560px){section{padding:14px 12px}body{font-size:15px}.bars{--names:38vw}.bar .value{white-space:normal;max-width:9em}.grid4{grid-template-columns:repeat(2,minmax(0,150px))}
.columns>*{flex-basis:100%}.scroll .wide td{min-width:0}th,td{padding-right:.55em}}
@media print{.sample,.run{display:block!important}.picks,.runnames,nav{display:none}section{break-inside:avoid-page}}
"""


def chooser_css(count: int) -> str:
    """Show the chosen sample and mark its label: radio buttons, no script."""
    rules = []
    for i in range(count):
        rules.append(f".pick{i}:checked~.samples .sample{i}{{display:block}}")
        rules.append(f".pick{i}:checked~.picks .for{i}{{border-color:var(--accent)}}")
        rules.append(f".pick{i}:focus-visible~.picks .for{i}{{outline:2px solid var(--ink)}}")
    return "".join(rules)


def runs_css(count: int) -> str:
    """The same for whole runs."""
    rules = []
    for i in range(count):
        rules.append(f"#run{i}:checked~.runs .run{i}{{display:block}}")
        rules.append(
            f"#run{i}:checked~.runnames [for=run{i}]{{border-color:var(--accent);font-weight:600}}"
        )
        rules.append(
            f"#run{i}:focus-visible~.runnames [for=run{i}]{{outline:2px solid var(--ink)}}"
        )
    return "".join(rules)
