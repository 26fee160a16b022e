"""The look of the page: one style sheet, light and dark, for a desk, a phone and paper."""

CSS = """
:root { color-scheme: light dark;
  --paper: #ffffff; --raised: #f5f7f9; --ink: #1c2430; --muted: #5b6675; --line: #dde2e8;
  --fewer: #00704f; --more: #b23a00; --unsettled: #7a6200; --bar: #cfe4f3; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #171c23; --raised: #202731; --ink: #e8ecf1; --muted: #a3adba; --line: #343e4b;
  --fewer: #3fd3a3; --more: #ff9a63; --unsettled: #e6c14f; --bar: #24506e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 78rem; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
a { color: inherit; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3rem 0 .2rem; padding-top: 1.2rem;
  border-top: 2px solid var(--ink); }
h3 { font-size: 1.08rem; margin: 2.2rem 0 .4rem; }
h4 { font-size: .95rem; margin: 1rem 0 .3rem; }
p { margin: .4rem 0 .8rem; max-width: 48rem; }
.muted, caption, figcaption, .small { color: var(--muted); font-size: .88rem; }
.headline { font-size: 1.2rem; font-weight: 600; margin: 1rem 0; }
.verdicts { list-style: none; padding: 0; margin: 1rem 0; display: grid; gap: .7rem; }
.verdicts li { display: grid; grid-template-columns: 8.5rem 1fr; gap: 0 1.2rem;
  background: var(--raised); border-left: 5px solid var(--tone); border-radius: 4px;
  padding: .8rem 1.1rem; break-inside: avoid; }
.verdicts .figure { color: var(--tone); font-size: 1.65rem; font-weight: 700; line-height: 1.25; }
.verdicts .badge { color: var(--tone); display: block; font-size: .8rem; font-weight: 600; }
.verdicts p { margin: 0; max-width: none; }
.verdicts .small { margin-top: .25rem; }
.fewer { --tone: var(--fewer); } .more { --tone: var(--more); }
.unsettled { --tone: var(--unsettled); }
.tone { color: var(--tone); font-weight: 600; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
  gap: 1rem; margin: 1rem 0 0; }
.chart { width: 100%; max-width: 46rem; height: auto; display: block; }
.chart text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.chart .heading { font-size: 13px; font-weight: 600; fill: var(--ink); }
.chart .tick { fill: var(--muted); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .target { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 1 3; }
.arm { --c: var(--light); }
.arm .line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.arm .band { fill: var(--c); opacity: .11; }
.arm .ring { fill: var(--paper); stroke: var(--c); stroke-width: 2; }
.arm .lead { stroke: var(--c); fill: none; opacity: .6; }
.arm .name { fill: var(--c); font-weight: 600; }
.chart:hover .arm { opacity: .3; } .chart .arm:hover { opacity: 1; }
.arm:hover .line { stroke-width: 3.2; } .arm:hover .band { opacity: .3; }
details { border-top: 1px solid var(--line); padding: .45rem 0; }
details + h3 { margin-top: 2.6rem; }
summary { cursor: pointer; font-weight: 600; }
.tally p { margin: .25rem 0; max-width: none; }
.heat td { border-left: 3px solid var(--paper); background:
  color-mix(in srgb, var(--tone, transparent) var(--heat, 0%), transparent); }
.heat th, .heat td { padding: .34rem .5rem; }
.heat .ratio { font-weight: 600; }
.heat td .small { font-size: .78rem; line-height: 1.35; }
td .muted { font-size: .8rem; }
.heat td.fewer .muted, .heat td.more .muted { color: var(--ink); }
.heat td .small.tone, .heat td .small .tone { color: var(--tone); }
figure { margin: 0; break-inside: avoid; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; caption-side: bottom; padding: .5rem 0 0; }
caption span { display: block; position: sticky; left: 0;
  max-width: min(76rem, calc(100vw - 5rem)); }
th, td { padding: .42rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; line-height: 1.3; }
th:first-child, td:first-child, .text { text-align: left; }
.scroll th:first-child { position: sticky; left: 0; background: var(--paper); z-index: 1; }
tbody th, .nowrap { white-space: nowrap; }
tbody tr { break-inside: avoid; }
td .small, th .small { display: block; white-space: nowrap; font-weight: 400; }
td.share { background: linear-gradient(to right, var(--bar) var(--share), transparent 0)
  no-repeat; }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 50%;
  margin-right: .5em; background: var(--light); }
@media (prefers-color-scheme: dark) { .swatch { background: var(--dark); }
  .arm { --c: var(--dark); } }
.notes { border: 1px solid var(--unsettled); border-radius: 4px; padding: .6rem 1rem .6rem 2rem;
  margin: 1rem 0; font-size: .93rem; }
.examples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr));
  gap: 0 1.6rem; }
.examples ol { padding-left: 1.5rem; margin: 0; font-size: .92rem; }
.examples li { margin: .25rem 0; overflow-wrap: anywhere; }
.label { background: var(--raised); border: 1px solid var(--line); border-radius: 3px;
  padding: 0 .35em; font-size: .82rem; color: var(--muted); white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .93rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media (max-width: 36rem) {
  .verdicts li { grid-template-columns: 1fr; gap: .2rem; }
  .verdicts .badge { display: inline; margin-left: .6rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  main { padding-top: 1.2rem; } th, td { padding: .38rem .5rem; } }
@media print {
  :root { --paper: #fff; --raised: #f5f7f9; --ink: #000; --muted: #444; --line: #bbb;
    --fewer: #00704f; --more: #b23a00; --unsettled: #7a6200; --bar: #cfe4f3; }
  body { font-size: 11px; } main { max-width: none; padding: 0; } .scroll { overflow: visible; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
