"""What is read of libtpu's schedule of a kernel."""

from bench.kernels import cycles

BUNDLES = """
     0   :  { %s1 = smov 0 }
   0x1 LB: > { %p1 = sgt }
   0x2   : > { (!%p1) = sbr.rel (!%p1) target bundleno = 30 }
   0x3   : > { %p2 = seq }
   0x4   : > { sbr.rel (%p2) target bundleno = 9 }
   0x5   : >> { %v1 = vld }
   0x9 PF: > { %p3 = seq }
   0xa   : > { sbr.rel (%p3) target bundleno = 20 }
  0x14 PF: > { %p4 = seq }
  0x15   : > { sbr.rel (%p4) target bundleno = 25 }
  0x19 PF: > { %p5 = seq }
  0x1a   : > { sbr.rel (!%p5) target bundleno = 1 }
  0x1b   :  { %s9 = smov 0 }
"""


def test_bundles_of_a_turn_and_of_the_parts_that_it_may_skip() -> None:
    # From 1 to 26; of them 5 from the jump at 4 to 9, 10 from 10 to 20 and 4 from 21 to 25.
    assert cycles(BUNDLES) == {"step": 25 - (5 + 10 + 4), "line": 5 + 4, "block": 10}
