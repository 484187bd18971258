"""The protocol: every curve's numbers, held against what the configuration composes.

They are written out here, from the paper and the author's files, so that no change of code or configuration can
alter what is trained without changing this table too.
"""

import pytest

from repro import schedules
from repro.config import Filler
from repro.config.folders import CONF

# experiment: (network, data, iterations, step size, batch, images a BN group, weight decay, test interval,
#              [(iteration, LR, momentum)])
# fmt: off
PROTOCOL = {
    "fig5a/clr_3.0": ("resnet56_superconv", "cifar10", 10000, 5000, 1000, 125, 0.0001, 100,
        [(0, 0.1, 0.9), (1000, 0.68, 0.9), (5000, 3.0, 0.9), (9900, 0.158, 0.9), (10000, 0.1, 0.9)]),
    "fig5b/wd_1e-3": ("resnet56_superconv", "cifar10", 10000, 5000, 1000, 125, 0.001, 100,
        [(0, 0.1, 0.9), (1000, 0.68, 0.9), (5000, 3.0, 0.9), (9900, 0.158, 0.9), (10000, 0.1, 0.9)]),
    "fig5b/wd_1e-4": ("resnet56_superconv", "cifar10", 10000, 5000, 1000, 125, 0.0001, 100,
        [(0, 0.1, 0.9), (1000, 0.68, 0.9), (5000, 3.0, 0.9), (9900, 0.158, 0.9), (10000, 0.1, 0.9)]),
    "fig5b/wd_1e-5": ("resnet56_superconv", "cifar10", 10000, 5000, 1000, 125, 1e-05, 100,
        [(0, 0.1, 0.9), (1000, 0.68, 0.9), (5000, 3.0, 0.9), (9900, 0.158, 0.9), (10000, 0.1, 0.9)]),
    "fig5b/wd_1e-6": ("resnet56_superconv", "cifar10", 10000, 5000, 1000, 125, 1e-06, 100,
        [(0, 0.1, 0.9), (1000, 0.68, 0.9), (5000, 3.0, 0.9), (9900, 0.158, 0.9), (10000, 0.1, 0.9)]),
    "fig5a/piecewise_0.35": ("resnet56_superconv", "cifar10", 80000, None, 1000, 125, 0.0001, 100,
        [(0, 0.35, 0.9), (49999, 0.35, 0.9), (50000, 0.035, 0.9), (70000, 0.0035, 0.9), (80000, 0.0035, 0.9)]),
    "fig5a/piecewise_0.1": ("resnet56_superconv", "cifar10", 80000, None, 1000, 125, 0.0001, 100,
        [(0, 0.1, 0.9), (49999, 0.1, 0.9), (50000, 0.01, 0.9), (70000, 0.001, 0.9), (80000, 0.001, 0.9)]),
    "fig5a/piecewise_0.1_short": ("resnet56_superconv", "cifar10", 10000, None, 1000, 125, 0.0001, 100,
        [(0, 0.1, 0.9), (6249, 0.1, 0.9), (6250, 0.01, 0.9), (8750, 0.001, 0.9), (10000, 0.001, 0.9)]),
    "fig8a/constant_0.9": ("resnet56_hyperparam", "cifar10", 20000, 9000, 1024, 256, 5e-05, 200,
        [(0, 0.1, 0.9), (4500, 0.55, 0.9), (9000, 1.0, 0.9), (13500, 0.5, 0.9), (18000, 0.001, 0.9), (20000, 0.001, 0.9)]),
    "fig8a/decreasing_0.95-0.85": ("resnet56_hyperparam", "cifar10", 20000, 9000, 1024, 256, 5e-05, 200,
        [(0, 0.1, 0.95), (4500, 0.55, 0.9), (9000, 1.0, 0.85), (13500, 0.5, 0.9), (18000, 0.001, 0.95), (20000, 0.001, 0.95)]),
    "fig8a/increasing_0.85-0.95": ("resnet56_hyperparam", "cifar10", 20000, 9000, 1024, 256, 5e-05, 200,
        [(0, 0.1, 0.85), (4500, 0.55, 0.9), (9000, 1.0, 0.95), (13500, 0.5, 0.9), (18000, 0.001, 0.85), (20000, 0.001, 0.85)]),
    "fig8b/tbs128": ("resnet56_hyperparam", "cifar10", 18750, 8203, 128, 32, 0.0001, 200,
        [(0, 0.04, 0.95), (2400, 0.145327, 0.920742), (8203, 0.4, 0.85), (10375, 0.294088, 0.876478), (18750, 4e-05, 0.95)]),
    "fig8b/tbs256": ("resnet56_hyperparam", "cifar10", 13671, 6054, 256, 64, 0.0001, 200,
        [(0, 0.06, 0.95), (2400, 0.274073, 0.910357), (6054, 0.6, 0.85), (7835, 0.423489, 0.879419), (13671, 6e-05, 0.95)]),
    "fig8b/tbs512": ("resnet56_hyperparam", "cifar10", 9277, 4003, 512, 128, 0.0001, 200,
        [(0, 0.08, 0.95), (2400, 0.511676, 0.890045), (4003, 0.8, 0.85), (5638, 0.473245, 0.890844), (9277, 8e-05, 0.95)]),
    "fig8b/tbs1024": ("resnet56_hyperparam", "cifar10", 5859, 2490, 1024, 256, 0.0001, 200,
        [(0, 0.1, 0.95), (2400, 0.96747, 0.853614), (2490, 1.0, 0.85), (3832, 0.461044, 0.903896), (5859, 0.0001, 0.95)]),
    "fig6a/tbs128": ("resnet56_hyperparam", "cifar10", 18750, 8203, 128, 32, 0.0001, 200,
        [(0, 0.04, 0.95), (2400, 0.145327, 0.95), (8203, 0.4, 0.95), (10375, 0.294088, 0.95), (18750, 4e-05, 0.95)]),
    "fig6a/tbs256": ("resnet56_hyperparam", "cifar10", 13671, 6054, 256, 64, 0.0001, 200,
        [(0, 0.06, 0.95), (2400, 0.274073, 0.95), (6054, 0.6, 0.95), (7835, 0.423489, 0.95), (13671, 6e-05, 0.95)]),
    "fig6a/tbs512": ("resnet56_hyperparam", "cifar10", 9277, 4003, 512, 128, 0.0001, 200,
        [(0, 0.08, 0.95), (2400, 0.511676, 0.95), (4003, 0.8, 0.95), (5638, 0.473245, 0.95), (9277, 8e-05, 0.95)]),
    "fig6a/tbs1024": ("resnet56_hyperparam", "cifar10", 5859, 2490, 1024, 256, 0.0001, 200,
        [(0, 0.1, 0.95), (2400, 0.96747, 0.95), (2490, 1.0, 0.95), (3832, 0.461044, 0.95), (5859, 0.0001, 0.95)]),
    "fig15a/wd_3e-4": ("resnet56_hyperparam", "cifar100", 4882, 4882, 512, 128, 0.0003, 200,
        [(0, 0.1, 0.95), (1000, 0.284351, 0.929517), (2441, 0.55, 0.9), (4882, 1.0, 0.85)]),
    "fig15a/wd_1e-4": ("resnet56_hyperparam", "cifar100", 4882, 4882, 512, 128, 0.0001, 200,
        [(0, 0.1, 0.95), (1000, 0.284351, 0.929517), (2441, 0.55, 0.9), (4882, 1.0, 0.85)]),
    "fig15a/wd_1e-5": ("resnet56_hyperparam", "cifar100", 4882, 4882, 512, 128, 1e-05, 200,
        [(0, 0.1, 0.95), (1000, 0.284351, 0.929517), (2441, 0.55, 0.9), (4882, 1.0, 0.85)]),
    "fig15b/tbs256": ("resnet56_hyperparam", "cifar100", 16601, 8007, 256, 64, 0.0001, 100,
        [(0, 0.05, 0.95), (1200, 0.117441, 0.935013), (8007, 0.5, 0.85), (6000, 0.387205, 0.875066), (16601, 5e-05, 0.95)]),
    "fig15b/tbs512": ("resnet56_hyperparam", "cifar100", 9765, 4394, 512, 128, 0.0001, 100,
        [(0, 0.09, 0.95), (1200, 0.311211, 0.92269), (4394, 0.9, 0.85), (6000, 0.571051, 0.88655), (9765, 9e-05, 0.95)]),
    "fig15b/tbs1024": ("resnet56_hyperparam", "cifar100", 7080, 3417, 1024, 256, 0.0001, 100,
        [(0, 0.1, 0.95), (1200, 0.486304, 0.914881), (3417, 1.2, 0.85), (6000, 0.292888, 0.925593), (7080, 0.0001, 0.95)]),
}
# Tables 1 and 2, and the other figures:
# experiment: (network, data, mirrored, iterations, step size, batch, weight decay, Nesterov, points as above)
TABLES = {
    "table1-cnn3/1cycle_cm_0.95-0.85": ("cnn3", "cifar10", False, 9765, 4296, 128, 0.003, True,
        [(0, 0.0005, 0.95), (2148, 0.00275, 0.9), (4296, 0.005, 0.85), (6444, 0.0025, 0.9), (8592, 5e-07, 0.95), (9765, 5e-07, 0.95)]),
    "table1-cnn3/1cycle_cm_0.90-1.00": ("cnn3", "cifar10", False, 9765, 4296, 128, 0.003, True,
        [(0, 0.0005, 0.9), (2148, 0.00275, 0.95), (4296, 0.005, 1.0), (6444, 0.0025, 0.95), (8592, 5e-07, 0.9), (9765, 5e-07, 0.9)]),
    **{f"table1-cnn3/1cycle_{m:.2f}": ("cnn3", "cifar10", False, 9765, 4296, 128, 0.003, True,
        [(0, 0.0005, m), (2148, 0.00275, m), (4296, 0.005, m), (6444, 0.0025, m), (8592, 5e-07, m), (9765, 5e-07, m)])
        for m in (0.85, 0.9, 0.95)},
    "table1-cnn3/constant_cm_0.95-0.85": ("cnn3", "cifar10", False, 9765, 4296, 128, 0.003, True,
        [(0, 0.0005, 0.95), (2148, 0.0005, 0.9), (4296, 0.0005, 0.85), (6444, 0.0005, 0.9), (8592, 0.0005, 0.95), (9765, 0.0005, 0.95)]),
    "table1-cnn3/constant_cm_0.90-1.00": ("cnn3", "cifar10", False, 9765, 4296, 128, 0.003, True,
        [(0, 0.0005, 0.9), (2148, 0.0005, 0.95), (4296, 0.0005, 1.0), (6444, 0.0005, 0.95), (8592, 0.0005, 0.9), (9765, 0.0005, 0.9)]),
    **{f"table1-cnn3/constant_{m:.2f}": ("cnn3", "cifar10", False, 9765, None, 128, 0.003, True,
        [(0, 0.0005, m), (9765, 0.0005, m)]) for m in (0.85, 0.9, 0.95)},
    "table2-lenet/inv_85ep": ("lenet", "mnist", False, 9960, None, 512, 0.0005, False,
        [(0, 0.01, 0.9), (1000, 0.00931012, 0.9), (5000, 0.00737788, 0.9), (9960, 0.00595495, 0.9)]),
    "table2-lenet/step_85ep": ("lenet", "mnist", False, 9960, None, 512, 0.0005, False,
        [(4979, 0.01, 0.9), (4980, 0.00316, 0.9), (7470, 0.00099856, 0.9), (8715, 0.000315545, 0.9), (9337, 9.97122e-05, 0.9), (9960, 9.97122e-05, 0.9)]),
    "table2-lenet/1cycle_12ep": ("lenet", "mnist", False, 1406, 585, 512, 0.0005, False,
        [(0, 0.01, 0.95), (585, 0.1, 0.8), (1170, 1e-05, 0.95), (1406, 1e-05, 0.95)]),
    "table2-lenet/1cycle_25ep": ("lenet", "mnist", False, 2929, 1406, 512, 0.0005, False,
        [(0, 0.01, 0.95), (703, 0.055, 0.875), (1406, 0.1, 0.8), (2812, 1e-05, 0.95), (2929, 1e-05, 0.95)]),
    "table2-lenet/1cycle_50ep": ("lenet", "mnist", False, 5859, 2695, 512, 0.0005, False,
        [(0, 0.01, 0.95), (2695, 0.1, 0.8), (5390, 1e-05, 0.95), (5859, 1e-05, 0.95)]),
    "table2-lenet/1cycle_85ep": ("lenet", "mnist", False, 9960, 4687, 512, 0.0005, False,
        [(0, 0.02, 0.95), (4687, 0.2, 0.8), (9374, 2e-05, 0.95), (9960, 2e-05, 0.95)]),
    "table1-resnet56/1cycle_cm_0.95-0.85": ("resnet56_hyperparam", "cifar10", True, 9277, 4003, 512, 0.0001, True,
        [(0, 0.08, 0.95), (4003, 0.8, 0.85), (8006, 8e-05, 0.95), (9277, 8e-05, 0.95)]),
    "table1-resnet56/1cycle_cm_0.90-1.00": ("resnet56_hyperparam", "cifar10", True, 9277, 4003, 512, 0.0001, True,
        [(0, 0.08, 0.9), (4003, 0.8, 1.0), (8006, 8e-05, 0.9), (9277, 8e-05, 0.9)]),
    "table1-resnet56/1cycle_0.85": ("resnet56_hyperparam", "cifar10", True, 9277, 4003, 512, 0.0001, True,
        [(0, 0.08, 0.85), (4003, 0.8, 0.85), (8006, 8e-05, 0.85), (9277, 8e-05, 0.85)]),
    "table1-resnet56/1cycle_0.90": ("resnet56_hyperparam", "cifar10", True, 9277, 4003, 512, 0.0001, True,
        [(0, 0.08, 0.9), (4003, 0.8, 0.9), (8006, 8e-05, 0.9), (9277, 8e-05, 0.9)]),
    "table1-resnet56/1cycle_0.95": ("resnet56_hyperparam", "cifar10", True, 9277, 4003, 512, 0.0001, True,
        [(0, 0.08, 0.95), (4003, 0.8, 0.95), (8006, 8e-05, 0.95), (9277, 8e-05, 0.95)]),
    "table1-resnet56/constant_cm_0.95-0.85": ("resnet56_hyperparam", "cifar10", True, 9277, 4003, 512, 0.0001, True,
        [(0, 0.1, 0.95), (4003, 0.1, 0.85), (8006, 0.1, 0.95), (9277, 0.1, 0.95)]),
    "table1-resnet56/constant_cm_0.90-1.00": ("resnet56_hyperparam", "cifar10", True, 9277, 4003, 512, 0.0001, True,
        [(0, 0.1, 0.9), (4003, 0.1, 1.0), (8006, 0.1, 0.9), (9277, 0.1, 0.9)]),
    "table1-resnet56/constant_0.85": ("resnet56_hyperparam", "cifar10", True, 9277, None, 512, 0.0001, True,
        [(0, 0.1, 0.85), (9277, 0.1, 0.85)]),
    "table1-resnet56/constant_0.90": ("resnet56_hyperparam", "cifar10", True, 9277, None, 512, 0.0001, True,
        [(0, 0.1, 0.9), (9277, 0.1, 0.9)]),
    "table1-resnet56/constant_0.95": ("resnet56_hyperparam", "cifar10", True, 9277, None, 512, 0.0001, True,
        [(0, 0.1, 0.95), (9277, 0.1, 0.95)]),
    "table2-wide/step_100ep": ("wide_resnet32", "cifar10", True, 9765, None, 512, 0.0001, True,
        [(4881, 0.1, 0.9), (4882, 0.0316, 0.9), (7323, 0.0099856, 0.9), (8544, 0.00315545, 0.9), (9154, 0.000997122, 0.9), (9765, 0.000997122, 0.9)]),
    "table2-wide/step_200ep": ("wide_resnet32", "cifar10", True, 19531, None, 512, 0.0001, True,
        [(9764, 0.1, 0.9), (9765, 0.0316, 0.9), (14648, 0.0099856, 0.9), (17089, 0.00315545, 0.9), (18310, 0.000997122, 0.9), (19531, 0.000997122, 0.9)]),
    "table2-wide/step_400ep": ("wide_resnet32", "cifar10", True, 39062, None, 512, 0.0001, True,
        [(19530, 0.1, 0.9), (19531, 0.0316, 0.9), (29296, 0.0099856, 0.9), (34179, 0.00315545, 0.9), (36620, 0.000997122, 0.9), (39062, 0.000997122, 0.9)]),
    "table2-wide/step_800ep": ("wide_resnet32", "cifar10", True, 78125, None, 512, 0.0001, True,
        [(39061, 0.1, 0.9), (39062, 0.0316, 0.9), (58593, 0.0099856, 0.9), (68359, 0.00315545, 0.9), (73242, 0.000997122, 0.9), (78125, 0.000997122, 0.9)]),
    "table2-wide/1cycle_25ep": ("wide_resnet32", "cifar10", True, 2441, 1171, 512, 0.0001, True,
        [(0, 0.1, 0.95), (1171, 0.5, 0.85), (2342, 0.0001, 0.95), (2441, 0.0001, 0.95)]),
    "table2-wide/1cycle_50ep": ("wide_resnet32", "cifar10", True, 4882, 2246, 512, 0.0001, True,
        [(0, 0.1, 0.95), (2246, 1.0, 0.85), (4492, 0.0001, 0.95), (4882, 0.0001, 0.95)]),
    "table2-wide/1cycle_100ep": ("wide_resnet32", "cifar10", True, 9765, 4394, 512, 0.0001, True,
        [(0, 0.1, 0.95), (4394, 1.0, 0.85), (8788, 0.0001, 0.95), (9765, 0.0001, 0.95)]),
    "table2-densenet/step_100ep": ("densenet40", "cifar10", True, 9765, None, 512, 0.0001, True,
        [(4881, 0.1, 0.9), (4882, 0.0316, 0.9), (7323, 0.0099856, 0.9), (8544, 0.00315545, 0.9), (9154, 0.000997122, 0.9), (9765, 0.000997122, 0.9)]),
    "table2-densenet/step_200ep": ("densenet40", "cifar10", True, 19531, None, 512, 0.0001, True,
        [(9764, 0.1, 0.9), (9765, 0.0316, 0.9), (14648, 0.0099856, 0.9), (17089, 0.00315545, 0.9), (18310, 0.000997122, 0.9), (19531, 0.000997122, 0.9)]),
    "table2-densenet/step_400ep": ("densenet40", "cifar10", True, 39062, None, 512, 0.0001, True,
        [(19530, 0.1, 0.9), (19531, 0.0316, 0.9), (29296, 0.0099856, 0.9), (34179, 0.00315545, 0.9), (36620, 0.000997122, 0.9), (39062, 0.000997122, 0.9)]),
    "table2-densenet/1cycle_50ep": ("densenet40", "cifar10", True, 4882, 2148, 512, 1e-06, True,
        [(0, 0.1, 0.9), (2148, 4.0, 0.85), (4296, 0.0001, 0.9), (4882, 0.0001, 0.9)]),
    "table2-densenet/1cycle_75ep": ("densenet40", "cifar10", True, 7324, 3320, 512, 1e-06, True,
        [(0, 0.1, 0.9), (3320, 4.0, 0.85), (6640, 0.0001, 0.9), (7324, 0.0001, 0.9)]),
    "table2-densenet/1cycle_100ep": ("densenet40", "cifar10", True, 9765, 4394, 512, 1e-06, True,
        [(0, 0.1, 0.9), (4394, 4.0, 0.85), (8788, 0.0001, 0.9), (9765, 0.0001, 0.9)]),
    "table2-densenet/1cycle_150ep": ("densenet40", "cifar10", True, 14648, 6835, 512, 1e-06, True,
        [(0, 0.1, 0.9), (6835, 4.0, 0.85), (13670, 0.0001, 0.9), (14648, 0.0001, 0.9)]),
    "table2-cifar100/step_100ep": ("resnet56_hyperparam", "cifar100", True, 9765, None, 512, 0.0001, True,
        [(4881, 0.005, 0.9), (4882, 0.00158, 0.9), (7323, 0.00049928, 0.9), (8544, 0.000157772, 0.9), (9154, 4.98561e-05, 0.9), (9765, 4.98561e-05, 0.9)]),
    "table2-cifar100/step_200ep": ("resnet56_hyperparam", "cifar100", True, 19531, None, 512, 0.0001, True,
        [(9764, 0.005, 0.9), (9765, 0.00158, 0.9), (14648, 0.00049928, 0.9), (17089, 0.000157772, 0.9), (18310, 4.98561e-05, 0.9), (19531, 4.98561e-05, 0.9)]),
    "table2-cifar100/step_400ep": ("resnet56_hyperparam", "cifar100", True, 39062, None, 512, 0.0001, True,
        [(19530, 0.005, 0.9), (19531, 0.00158, 0.9), (29296, 0.00049928, 0.9), (34179, 0.000157772, 0.9), (36620, 4.98561e-05, 0.9), (39062, 4.98561e-05, 0.9)]),
    "table2-cifar100/1cycle_25ep": ("resnet56_hyperparam", "cifar100", True, 2441, 1171, 512, 0.0001, True,
        [(0, 0.1, 0.95), (1171, 0.5, 0.85), (2342, 0.0001, 0.95), (2441, 0.0001, 0.95)]),
    "table2-cifar100/1cycle_50ep": ("resnet56_hyperparam", "cifar100", True, 4882, 2246, 512, 0.0001, True,
        [(0, 0.1, 0.95), (2246, 0.5, 0.85), (4492, 0.0001, 0.95), (4882, 0.0001, 0.95)]),
    "table2-cifar100/1cycle_100ep": ("resnet56_hyperparam", "cifar100", True, 9765, 4394, 512, 0.0001, True,
        [(0, 0.09, 0.95), (4394, 0.9, 0.85), (8788, 9e-05, 0.95), (9765, 9e-05, 0.95)]),
    **{f"fig4a/wd_{wd}": ("cnn3", "cifar10", False, 20000, None, 536, float(wd), True,
        [(0, 0.0, 0.9), (200, 0.0001, 0.9), (20000, 0.01, 0.9)]) for wd in ("1e-4", "4e-3", "1e-2")},
    **{f"fig7a/momentum_{m}": ("cnn3", "cifar10", False, 10000, None, 548, 0.004, True,
        [(0, 0.002, m), (200, 0.00236, m), (10000, 0.02, m)]) for m in (0.7, 0.9, 0.99)},
    "fig7b/increasing_0.7-1": ("cnn3", "cifar10", False, 10000, 10000, 548, 0.004, True,
        [(0, 0.01, 0.7), (200, 0.01, 0.706), (5000, 0.01, 0.85), (10000, 0.01, 1.0)]),
    "fig7c/constant_0.9": ("cnn3", "cifar10", False, 10000, None, 548, 0.004, True, [(200, 0.00236, 0.9)]),
    **{f"fig7c/{name}": ("cnn3", "cifar10", False, 10000, 10000, 548, 0.004, True,
        [(0, 0.002, begin), (5000, 0.011, (begin + end) / 2), (10000, 0.02, end)]) for name, begin, end in
        (("increasing_0.8-1", 0.8, 1.0), ("decreasing_0.95-0.8", 0.95, 0.8), ("decreasing_0.97-0.7", 0.97, 0.7))},
    "fig7d/constant_0.9": ("cnn3", "cifar10", False, 20000, None, 536, 0.004, True,
        [(0, 0.007, 0.9), (9999, 0.007, 0.9), (10000, 0.002212, 0.9), (15000, 0.000698992, 0.9),
         (17500, 0.000220881, 0.9), (18999, 0.000220881, 0.9), (19000, 6.97985e-05, 0.9), (20000, 6.97985e-05, 0.9)]),
    "fig7d/decreasing_0.97-0.7": ("cnn3", "cifar10", False, 20000, 10000, 536, 0.004, True,
        [(0, 0.001, 0.97), (5000, 0.004, 0.835), (9999, 0.0069994, 0.700027), (10000, 0.002212, 0.7),
         (15000, 0.000698992, 0.835), (17500, 0.000220881, 0.9025), (19000, 6.97985e-05, 0.943), (20000, 6.97985e-05, 0.97)]),
    **{f"fig9a/wd_{wd}": ("cnn3", "cifar10", False, 16000, None, 536, float(wd), True,
        [(0, 0.005, 0.95), (7999, 0.005, 0.95), (8000, 0.00158, 0.95), (12000, 0.00049928, 0.95), (14000, 0.000157772, 0.95),
         (16000, 0.000157772, 0.95)]) for wd in ("1e-3", "1.8e-3", "3.2e-3", "1e-2")},
    **{f"fig10a/wd_{wd}": ("cnn3", "cifar10", False, 8000, 8000, 536, float(wd), True,
        [(0, 0.001, 0.98), (200, 0.001225, 0.9755), (8000, 0.01, 0.8)]) for wd in ("1e-3", "1.8e-3", "3.2e-3", "1e-2")},
    **{f"fig12a/wd_{wd}": ("cnn3", "cifar10", False, 4000, None, 536, float(wd), True,
        [(0, 0.001, 0.95), (1000, 0.00325, 0.95), (4000, 0.01, 0.95)]) for wd in ("1e-3", "3e-3", "1e-2")},
    "fig3a/lr_0.0055": ("cnn3", "cifar10", False, 60000, None, 536, 0.004, True,
        [(0, 0.0055, 0.9), (49999, 0.0055, 0.9), (50000, 0.001738, 0.9), (55000, 0.000549208, 0.9), (60000, 0.000549208, 0.9)]),
    "fig3a/lr_0.001": ("cnn3", "cifar10", False, 60000, None, 536, 0.004, True,
        [(0, 0.001, 0.9), (49999, 0.001, 0.9), (50000, 0.000316, 0.9), (55000, 9.9856e-05, 0.9), (60000, 9.9856e-05, 0.9)]),
    **{f"fig11a/wd_{wd}": ("resnet56_hyperparam", "cifar10", True, 20000, None, 1024, float(wd), True,
        [(0, 0.1, 0.95), (20000, 0.1, 0.95)]) for wd in ("1e-4", "3.2e-4", "5.6e-4", "1e-3")},
    **{f"fig11b/wd_{wd}": ("resnet56_hyperparam", "cifar10", True, 20000, 20000, 1024, float(wd), True,
        [(0, 0.1, 0.97), (200, 0.119, 0.9683), (20000, 2.0, 0.8)]) for wd in ("1e-4", "1e-5", "1e-6", "3.2e-4")},
    **{f"fig12b/wd_{wd}": ("resnet56_hyperparam", "cifar10", True, 3906, None, 512, float(wd), True,
        [(0, 0.08, 0.95), (1800, 0.411797, 0.95), (3906, 0.8, 0.95)]) for wd in ("1e-4", "3e-4", "1e-3")},
    **{f"fig13a/wd_{wd}": ("wide_resnet32", "cifar10", True, 9765, 9765, 512, float(wd), True,
        [(0, 0.1, 0.95), (4800, 0.542396, 0.900845), (9765, 1.0, 0.85)]) for wd in ("1e-3", "1e-4", "1e-5")},
    **{f"fig13b/decreasing_{m}-0.85": ("densenet40", "cifar10", True, 9765, 9765, 256, 1e-05, True,
        [(0, 0.1, m), (9765, 1.0, 0.85)]) for m in (0.9, 0.95, 0.97)},
    **{f"fig13c/wd_{wd}": ("densenet40", "cifar10", True, 9765, 9765, 256, float(wd), True,
        [(0, 0.1, 0.9), (4800, 2.01705, 0.875422), (9765, 4.0, 0.85)]) for wd in ("1e-4", "1e-6", "1e-7")},
    **{f"fig13d/tbs{batch}": ("densenet40", "cifar10", True, 9765, 9765, batch, 1e-06, True,
        [(0, 0.1, 0.9), (9765, 4.0, 0.85)]) for batch in (256, 512)},
    "fig14a/constant_0.9": ("lenet", "mnist", False, 5859, None, 512, 0.0005, False,
        [(0, 0.001, 0.9), (2900, 0.0104043, 0.9), (5859, 0.02, 0.9)]),
    "fig14a/decreasing_0.95-0.8": ("lenet", "mnist", False, 5859, 5859, 512, 0.0005, False,
        [(0, 0.001, 0.95), (2900, 0.0104043, 0.875755), (5859, 0.02, 0.8)]),
    **{f"fig14b/wd_{wd}": ("lenet", "mnist", False, 5859, 5859, 512, float(wd), False,
        [(0, 0.01, 0.95), (2900, 0.203036, 0.875755), (5859, 0.4, 0.8)]) for wd in ("1e-4", "5e-4", "1e-3", "3e-3")},
}
# fmt: on
EXPERIMENTS = sorted(
    p.relative_to(CONF / "experiment").with_suffix("").as_posix() for p in CONF.glob("experiment/*/*")
)
PIECEWISE = [name for name in PROTOCOL if "piecewise" in name]


def test_every_curve_of_the_paper_is_there():
    assert set(PROTOCOL) | set(TABLES) <= set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", PROTOCOL)
def test_the_protocol(resolved, experiment):
    run = resolved(f"experiment={experiment}")
    network, data, iterations, step, batch, group, decay, every, points = PROTOCOL[experiment]
    assert (run.model.name, run.dataset.name, run.iterations, run.batch_size) == (network, data, iterations, batch)
    assert run.batch_size / run.model.bn_groups == group
    assert (run.regularization.weight_decay, run.test_every) == (decay, every)
    assert (run.dataset.mirror, run.dataset.train_images, run.dataset.test_images) == (True, None, None)
    assert (run.model.blocks, run.model.width, run.model.init.value) == (9, 16, "msra")
    assert (run.update.value, run.replicates.value) == ("caffe", "seeds")
    check_schedule(run, step, points)


@pytest.mark.parametrize("experiment", TABLES)
def test_the_protocol_of_the_tables(resolved, experiment):
    run = resolved(f"experiment={experiment}")
    network, data, mirrored, iterations, step, batch, decay, nesterov, points = TABLES[experiment]
    assert (run.model.name, run.dataset.name, run.iterations, run.batch_size) == (network, data, iterations, batch)
    assert (run.regularization.weight_decay, run.model.nesterov) == (decay, nesterov)
    assert run.test_every == (100 if run.curve.startswith(("fig15b/", "fig14")) else 200)
    assert (run.model.gpus, run.model.bn_groups) == ((1, 1) if network in ("cnn3", "lenet") else (4, 4))
    assert run.model.bn_fraction == (0.999 if network == "densenet40" else 0.9)
    assert (run.dataset.mirror, run.dataset.train_images, run.dataset.test_images) == (mirrored, None, None)
    assert (run.update.value, run.replicates.value) == ("caffe", "seeds")
    check_schedule(run, step, points)


def test_a_row_that_a_figure_shows_is_trained_once(resolved):
    for row, curve in (("table1-resnet56/1cycle_cm_0.95-0.85", "fig8b/tbs512"),
                       ("table1-resnet56/1cycle_0.95", "fig6a/tbs512"),
                       ("table2-cifar100/1cycle_100ep", "fig15b/tbs512"),
                       ("fig7c/constant_0.9", "fig7a/momentum_0.9"),
                       ("fig13d/tbs256", "fig13c/wd_1e-6")):  # fmt: skip
        assert resolved(f"experiment={row}") == resolved(f"experiment={curve}")
    others = {name: resolved(f"experiment={name}").curve for name in TABLES}
    assert sum(name != curve for name, curve in others.items()) == 5


@pytest.mark.parametrize(
    ("figure", "begins", "others", "iteration"),
    [("fig12a", "wd_1e-3", ["wd_3e-3", "wd_1e-2"], 1000), ("fig12b", "wd_1e-4", ["wd_3e-4", "wd_1e-3"], 1800)],
)
def test_the_other_weight_decays_of_figure_12_start_from_one_run(resolved, figure, begins, others, iteration):
    run = resolved(f"experiment={figure}/{begins}")
    assert (run.snapshots, run.test_at_start) == ([iteration], False)
    for other in others:
        run = resolved(f"experiment={figure}/{other}")
        assert (run.start.curve, run.start.iteration) == (f"{figure}/{begins}", iteration)
        assert (run.snapshots, run.test_at_start) == ([], True)


def check_schedule(run, step, points):
    lr, momentum = run.schedule.lr, run.schedule.momentum
    assert {s["step_size"] for s in (lr, momentum) if "step_size" in s} <= {step}
    schedule = schedules.build(lr, momentum)
    assert [(i, *schedule(i)) for i, _, _ in points] == [pytest.approx(point, rel=1e-5) for point in points]


@pytest.mark.parametrize("experiment", PROTOCOL)
def test_the_rules_of_the_network(resolved, experiment):
    run = resolved(f"experiment={experiment}")
    model = run.model
    biases = (model.conv_bias_lr, model.conv_bias_decay, model.classifier_bias_lr, model.classifier_bias_decay)
    if model.name == "resnet56_superconv":
        assert (biases, model.nesterov, model.gpus, run.test_at_start) == ((2, 0, 2, 0), False, 8, True)
        assert model.bn_fraction == (0.999 if experiment in PIECEWISE else 0.95)
    else:
        assert (biases, model.nesterov, model.gpus, run.test_at_start) == ((1, 1, 2, 0), True, 4, False)
        assert model.bn_fraction == 0.9
    assert model.bn_eps == 1e-5


@pytest.mark.parametrize(
    ("network", "classifier_init", "classifier_bias_decay"),
    [("resnet56_superconv", "xavier", 0), ("resnet56_hyperparam", None, 0), ("wide_resnet32", None, 0),
     ("densenet40", "xavier", 1)],
)  # fmt: skip
def test_the_classifier_of_the_authors_files(resolved, network, classifier_init, classifier_bias_decay):
    model = resolved("experiment=fig8b/tbs512", f"model={network}").model
    assert model.classifier_init == (classifier_init and Filler(classifier_init))
    assert (model.classifier_bias_lr, model.classifier_bias_decay) == (2, classifier_bias_decay)


def test_the_authors_replicates(resolved):
    runs = [resolved("experiment=fig8b/tbs1024", "replicates=author", f"seed={k}") for k in range(4)]
    assert [run.batch_size for run in runs] == [1024, 1028, 1032, 1036]
    assert [run.batch_size // run.model.bn_groups for run in runs] == [256, 257, 258, 259]
    assert [run.model.init.value for run in runs] == ["msra", "xavier", "msra", "xavier"]
    assert {run.iterations for run in runs} == {5859}
