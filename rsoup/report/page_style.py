"""The page's style sheet and its few lines of script: constants, so that their digests can be allowed by name."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c1917;--paper:#fff;--faint:#78716c;--rule:#d6d3d1;--soft:#f5f5f4}
@media(prefers-color-scheme:dark){:root{--ink:#e7e5e4;--paper:#1c1917;--faint:#a8a29e;--rule:#44403c;--soft:#292524}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:76rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0}dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
.figures{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 22rem;max-width:36rem}figcaption{color:var(--faint);font-size:.85rem}
svg{width:100%;height:auto}svg text{fill:var(--ink);font-size:11px}
.frame{fill:none;stroke:var(--faint)}.grid{stroke:var(--rule);stroke-width:.5}.bar{stroke:var(--faint);stroke-width:1}
.line{fill:none;stroke:currentColor;stroke-width:1.5}.front,.dot,.ring{fill:currentColor}.pale{fill:currentColor;opacity:.35}
.ring{stroke:var(--ink);stroke-width:2}.dot{stroke:currentColor;stroke-width:.5}circle:hover,polygon.front:hover,polygon.pale:hover{stroke:var(--ink);stroke-width:2;opacity:1}
.c0{color:#c2410c}.c1{color:#0369a1}.c2{color:#15803d}.c3{color:#7e22ce}.c4{color:#b45309}.c5{color:#be123c}.c6{color:#0f766e}.c7{color:#4338ca}
@media(prefers-color-scheme:dark){.c0{color:#fb923c}.c1{color:#38bdf8}.c2{color:#4ade80}.c3{color:#c084fc}.c4{color:#fbbf24}.c5{color:#fb7185}.c6{color:#2dd4bf}.c7{color:#a5b4fc}}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .6rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
th button{all:unset;cursor:pointer}th button:focus-visible{outline:2px solid currentColor}tr.on td:first-child{font-weight:600}
code{background:var(--soft);padding:.1rem .3rem;overflow-wrap:anywhere;font-size:.85rem}pre{background:var(--soft);padding:.5rem;overflow-x:auto}
"""

SCRIPT: Final = """
for(const table of document.querySelectorAll('table.sortable'))table.querySelectorAll('thead th').forEach((head,at)=>{
const button=document.createElement('button');button.textContent=head.textContent;head.replaceChildren(button);
button.addEventListener('click',()=>{const down=head.ariaSort==='ascending',body=table.tBodies[0];
const key=row=>row.cells[at].dataset.value??'',both=(a,b)=>a===''||b===''?(a==='')-(b===''):0;
const order=(a,b)=>isNaN(a)||isNaN(b)?(a<b?-1:a>b?1:0):a-b;
const rows=[...body.rows].sort((a,b)=>both(key(a),key(b))||(down?-1:1)*order(key(a),key(b)));
for(const other of head.parentNode.cells)other.ariaSort=null;head.ariaSort=down?'descending':'ascending';body.append(...rows)})});
"""
