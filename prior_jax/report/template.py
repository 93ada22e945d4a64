"""The markup and style of the page. The environment escapes every inserted value."""

_STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --card: #f7f8fa; --ink: #1c2230; --soft: #5b6475; --rule: #dfe3ea;
  --line: {{ light.line }}; --accent: {{ light.accent }}; --mark: #fff0c2; --good: #00644a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161f; --card: #1a202c; --ink: #e7ebf3; --soft: #a0a9ba; --rule: #2e3646;
  --line: {{ dark.line }}; --accent: {{ dark.accent }}; --mark: #4c411a; --good: #5fd3ac; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main, header, footer { max-width: 72rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3rem 0 .25rem; letter-spacing: -.01em; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1.25rem 0 .25rem; color: var(--soft); font-weight: 600; }
p { margin: .35rem 0 1rem; max-width: 46rem; }
.soft, figcaption small, .lead { color: var(--soft); }
.eyebrow { margin: 0 0 .35rem; color: var(--soft); font-size: .85rem; }
nav { margin: 1rem 0 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .92rem; }
a { color: var(--line); text-underline-offset: .2em; }
code { font: .88em ui-monospace, "SF Mono", Menlo, Consolas, monospace; background: var(--card);
  border: 1px solid var(--rule); border-radius: .3rem; padding: .1em .35em;
  overflow-wrap: anywhere; }
.tiles { display: grid; gap: .75rem; margin: 1.5rem 0 0; padding: 0;
  grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem;
  padding: .8rem 1rem; }
.tile dt { color: var(--soft); font-size: .85rem; }
.tile dd { margin: 0; }
.tile .big { font-size: 1.7rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile .small { font-size: .82rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 1.1rem 1.5rem; margin: .75rem 0 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure img, .study > img { display: block; width: 100%; height: auto; }
.chart figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .1rem; }
.wide { max-width: 44rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .75rem .38rem 0; text-align: left; vertical-align: middle;
  border-bottom: 1px solid var(--rule); }
th { font-weight: 600; } thead th { color: var(--soft); font-size: .82rem; }
.number { text-align: right; white-space: nowrap; }
.interval { color: var(--soft); font-size: .85em; margin-left: .35em; }
.metrics { table-layout: fixed; } .metrics th:first-child { width: 26%; }
.metrics th.number { width: 16%; } .metrics th.narrow { width: 8%; }
.plot { padding-right: 0; padding-left: 1rem; }
.plot svg { display: block; width: 100%; height: 1.7rem; overflow: visible; }
.axis { display: flex; justify-content: space-between; font-weight: 400; }
.rail { stroke: var(--rule); stroke-width: 1; } .chance { stroke: var(--soft); stroke-width: 1;
  stroke-dasharray: 2 2; }
.trained { stroke: var(--line); fill: var(--line); } .untrained { stroke: var(--accent);
  fill: var(--page); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.25rem; font-size: .85rem;
  color: var(--soft); margin: 0 0 .75rem; }
.key svg { width: 1.6rem; height: .8rem; margin-right: .35rem; vertical-align: -.05rem; }
details { margin: 1rem 0; border-top: 1px solid var(--rule); padding-top: .6rem; }
summary { cursor: pointer; font-weight: 600; font-size: .92rem; }
details td:first-child { width: 40%; color: var(--soft); }
details td { overflow-wrap: anywhere; }
.pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 11rem), 1fr)); }
.pictures img, .study > img { background: #000; border-radius: .4rem; }
.three { grid-template-columns: repeat(3, minmax(0, 15rem)); }
figcaption { font-size: .88rem; line-height: 1.4; margin-top: .4rem; overflow-wrap: anywhere; }
figcaption small { display: block; }
.scale { height: .6rem; border-radius: .3rem; max-width: 14rem; margin: .25rem 0;
  background: linear-gradient(to right, {{ legend | join(", ") }}); }
.ends { display: flex; justify-content: space-between; max-width: 14rem; font-size: .82rem; }
.study { display: grid; gap: .75rem 1.5rem; grid-template-columns: 15rem minmax(0, 1fr);
  align-items: start; padding: 1.25rem 0; border-bottom: 1px solid var(--rule); }
.study h3 { margin-top: 0; }
ol.found { list-style: none; margin: .5rem 0 0; padding: 0; }
ol.found li { border-left: 4px solid var(--rule); padding: .1rem 0 .1rem .8rem;
  margin: .7rem 0; font-size: .92rem; overflow-wrap: anywhere; }
ol.found li.pair { border-left-color: var(--good); }
ol.found li.class { border-left-color: var(--line); }
ol.found .rank { display: block; color: var(--soft); font-size: .82rem;
  font-variant-numeric: tabular-nums; }
.pair .rank b { color: var(--good); } .class .rank b { color: var(--line); }
mark { background: var(--mark); color: inherit; border-radius: .2rem; padding: 0 .1em; }
.absent { background: var(--card); border: 1px dashed var(--rule); border-radius: .6rem;
  padding: .8rem 1rem; margin: .75rem 0; max-width: none; }
footer { margin-top: 4rem; padding-bottom: 3rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) {
  .study { grid-template-columns: 1fr; } .study > img { max-width: 18rem; }
  .key, .plot, .narrow, .metrics td:nth-child(4) { display: none; }
  .metrics th:first-child { width: 40%; } .metrics th.number { width: 30%; }
  .interval { display: block; margin: 0; }
  h1 { font-size: 1.5rem; } .three { grid-template-columns: repeat(3, 1fr); gap: .5rem; } }
@media print { details { display: none; } body { font-size: 12px; } }
"""

_MACROS = """
{% macro absent(command, what) %}
<p class="absent">{{ what }} Run <code>{{ command }}</code> to make it.</p>
{% endmacro %}
{% macro chart(c) %}
<figure class="chart"><figcaption>{{ c.title }}</figcaption>
<picture><source media="(prefers-color-scheme: dark)" srcset="{{ c.dark }}">
<img src="{{ c.light }}" alt="{{ c.alt }}"></picture></figure>
{% endmacro %}
{% macro picture_row(row, kind) %}
<h3>{{ row.title }}</h3>
<div class="pictures {{ kind }}">
{% for p in row.pictures %}
<figure><img src="{{ p.uri }}" alt="{{ p.alt }}"><figcaption>{{ p.caption }}
{% if p.note %}<small>{{ p.note }}</small>{% endif %}</figcaption></figure>
{% endfor %}
</div>
{% endmacro %}
{% macro number(m) %}{{ m.text }}{% if m.interval %}
<span class="interval">{{ m.interval }}</span>{% endif %}{% endmacro %}
{% macro bar(m, kind, y) %}
{% if m.low is not none %}
<line class="{{ kind }}" x1="{{ m.low }}%" x2="{{ m.high }}%" y1="{{ y }}" y2="{{ y }}"
 stroke-width="2"/>
{% endif %}
{% if m.value is not none %}
<circle class="{{ kind }}" cx="{{ m.value }}%" cy="{{ y }}" r="3.6" stroke-width="2"/>
{% endif %}
{% endmacro %}
{% macro metric_table(table) %}
{% if table.title %}<h4>{{ table.title }}</h4>{% endif %}
<div class="scroll"><table class="metrics">
<thead><tr><th scope="col">Metric</th><th scope="col" class="number">Trained</th>
<th scope="col" class="number">Untrained</th><th scope="col" class="number narrow">Chance</th>
<th class="plot"><span class="axis" aria-hidden="true"><span>{{ table.axis[0] }}</span>
<span>{{ table.axis[1] }}</span></span></th></tr></thead>
<tbody>
{% for row in table.rows %}
<tr><th scope="row">{{ row.label }}{% if row.reason %}
<span class="interval">{{ row.reason }}</span>{% endif %}</th>
<td class="number">{{ number(row.trained) }}</td>
<td class="number soft">{{ number(row.untrained) }}</td>
<td class="number soft">{{ row.chance_text or "–" }}</td>
<td class="plot"><svg aria-hidden="true">
<line class="rail" x1="0" x2="100%" y1="14" y2="14"/>
{% if row.chance is not none %}
<line class="chance" x1="{{ row.chance }}%" x2="{{ row.chance }}%" y1="1" y2="27"/>
{% endif %}
{{ bar(row.untrained, "untrained", 20) }}{{ bar(row.trained, "trained", 8) }}</svg></td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro pairs(rows) %}
<div class="scroll"><table><tbody>
{% for name, value in rows %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
"""

_HEAD = """
<header>
<p class="eyebrow">Pre-training of image and report encoders</p>
<h1>{{ run.name }}</h1>
<nav aria-label="Sections"><a href="#training">Training</a><a href="#evaluation">Evaluation</a>
<a href="#attention">Attention</a><a href="#retrieval">Retrieval</a>
<a href="#reconstruction">Reconstruction</a><a href="#bank">Prototypes</a>
<a href="#settings">Settings</a></nav>
{% if headlines or log.records %}
<dl class="tiles">
{% for row in headlines %}
<div class="tile"><dt>{{ row.label }}</dt><dd class="big">{{ row.trained.text }}</dd>
{% if row.trained.interval %}<dd class="small">{{ row.trained.interval }}</dd>{% endif %}
<dd class="small">untrained {{ row.untrained.text }}</dd></div>
{% endfor %}
{% if log.records %}
<div class="tile"><dt>Steps</dt><dd class="big">{{ "{:,}".format(log.records[-1].step) }}</dd>
<dd class="small">{{ curves.stages | map(attribute="name") | unique | list | length }}
 stage{{ "" if curves.stages | map(attribute="name") | unique | list | length == 1 else "s" }}
</dd></div>
{% endif %}
</dl>
{% endif %}
{% if run.dataset %}
<h2>Data</h2>
<div class="scroll wide"><table><thead><tr><th scope="col">Split</th>
{% for name in count_names %}<th scope="col" class="number">{{ name }}</th>{% endfor %}
</tr></thead><tbody>
{% for split, counts in run.dataset.items() %}
<tr><th scope="row">{{ split }}</th>{% for name in count_names %}
<td class="number">{{ "{:,}".format(counts[name]) if name in counts else "–" }}</td>
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
</header>
"""

_BODY = """
<main>
<section id="training"><h2>Training</h2>
{% if curves %}
<p class="lead">Each stage is a shaded stretch of steps, named above it. The strong line is a
moving average, the pale one what was logged; points on a broken line are of the validation
split.{% if log.unreadable %} {{ log.unreadable }} line{{ "" if log.unreadable == 1 else "s" }} of
metrics.jsonl could not be read and {{ "is" if log.unreadable == 1 else "are" }} left
out.{% endif %}</p>
{% if curves.losses %}<h3>Losses, unweighted, and their weighted total</h3>
<div class="charts">{% for c in curves.losses %}{{ chart(c) }}{% endfor %}</div>{% endif %}
{% if curves.others %}<h3>Course of the run</h3>
<div class="charts">{% for c in curves.others %}{{ chart(c) }}{% endfor %}</div>{% endif %}
{% else %}{{ absent(commands.curves, "No step has been logged yet.") }}{% endif %}
</section>

<section id="evaluation"><h2>Evaluation</h2>
{% if tasks %}
<p class="lead">On held-out records. Brackets are 95 % intervals unless the settings say
otherwise, from resampling patients.</p>
<p class="key"><span><svg aria-hidden="true"><line class="trained" x1="0" x2="100%" y1="6" y2="6"
 stroke-width="2"/><circle class="trained" cx="50%" cy="6" r="3.6"/></svg>trained</span>
<span><svg aria-hidden="true"><line class="untrained" x1="0" x2="100%" y1="6" y2="6"
 stroke-width="2"/><circle class="untrained" cx="50%" cy="6" r="3.6" stroke-width="2"/></svg>
untrained</span>
<span><svg aria-hidden="true"><line class="chance" x1="50%" x2="50%" y1="0" y2="13"/></svg>
chance</span></p>
{% for task in tasks %}
<h3>{{ task.label }}</h3>
{% for table in task.tables %}{{ metric_table(table) }}{% endfor %}
<details><summary>How it was measured</summary>{{ pairs(task.settings) }}</details>
{% endfor %}
{% else %}{{ absent(commands.evaluation, "The model has not been evaluated.") }}{% endif %}
</section>

<section id="attention"><h2>Where the text looks</h2>
{% if attention %}
<p class="lead">The attention of the sentences of a report, or of its telling words, over the
patches of its image, stretched to the range of each.</p>
<div class="scale" role="img" aria-label="Colour scale, dark blue is least, yellow is most"></div>
<div class="ends soft"><span>least</span><span>most</span></div>
{% for row in attention %}{{ picture_row(row, "") }}{% endfor %}
{% else %}{{ absent(commands.attention, "No attention was drawn.") }}{% endif %}
</section>

<section id="retrieval"><h2>Reports found for an image</h2>
{% if retrieval %}
<p class="lead">The closest reports in the held-out set, best first. <mark>Marked</mark> words are
in the image's own report too.</p>
{% for sheet in retrieval %}
<div class="study"><img src="{{ sheet.picture.uri }}" alt="{{ sheet.picture.alt }}">
<div><h3>{{ sheet.title }}</h3>
{% if sheet.classes %}<p class="soft">{{ sheet.classes }}</p>{% endif %}
<p>{{ sheet.report }}</p>
<ol class="found">
{% for found in sheet.found %}
<li class="{{ found.match }}"><span class="rank">{{ loop.index }}. <b>{{ found.label }}</b>,
similarity {{ found.score }}</span>
{% for text, shared in found.pieces %}{% if shared %}<mark>{{ text }}</mark>{% else %}{{ text }}
{%- endif %}{% endfor %}</li>
{% endfor %}
</ol></div></div>
{% endfor %}
{% else %}{{ absent(commands.retrieval, "No report was retrieved.") }}{% endif %}
</section>

<section id="reconstruction"><h2>Reconstructed images</h2>
{% if reconstructions %}
<p class="lead">Input and reconstruction share one grey window.</p>
{% for row in reconstructions %}{{ picture_row(row, "three") }}{% endfor %}
{% else %}{{ absent(commands.reconstruction, "No image was reconstructed.") }}{% endif %}
</section>

<section id="bank"><h2>Use of the prototype bank</h2>
{% if bank %}
<p class="lead">{{ bank.summary }}</p>
<div class="wide">{{ chart(bank.chart) }}</div>
{% if bank.rows %}
<div class="scroll"><table><thead><tr><th scope="col">Prototype</th>
<th scope="col" class="number">Share</th><th scope="col">Nearest sentences</th></tr></thead><tbody>
{% for index, share, sentences in bank.rows %}
<tr><th scope="row">{{ index }}</th><td class="number">{{ share }}</td>
<td>{% for sentence in sentences %}{{ sentence }}{% if not loop.last %}<br>{% endif %}
{% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% else %}
{{ absent(commands.bank, "No use of prototypes was counted; only models with a bank have one.") }}
{% endif %}
</section>

<section id="settings"><h2>Settings and versions</h2>
{% if run.versions %}<h3>Versions</h3>{{ pairs(run.versions.items()) }}{% endif %}
{% if settings %}<details><summary>All {{ settings | length }} settings</summary>
{{ pairs(settings) }}</details>{% endif %}
</section>
</main>
"""

TEMPLATE = (
    _MACROS
    + """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ run.name }}</title>
<style>"""
    + _STYLE
    + "</style></head>\n<body>"
    + _HEAD
    + _BODY
    + """<footer><p>Made by prior_jax. Not for clinical use.</p></footer>
</body></html>
"""
)
