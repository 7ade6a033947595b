"""The vectorcardiogram: X to the left, Y down, Z to the back, and what turning it does to the leads.

Dower et al. 1980 (Clin Cardiol 3:87) give the leads of it; the inverse is by Edenbrandt and Pahlm 1988
(doi:10.1016/0022-0736(88)90113-6). What is no dipole, the rest of each lead, stays as it is.
"""

import numpy as np

# leads I, II, V1 .. V6, as in leads.MODELLED, from X, Y, Z
DOWER = np.array([
    [0.632, -0.235, 0.059], [0.235, 1.066, -0.132], [-0.515, 0.157, -0.917], [0.044, 0.164, -1.387],
    [0.882, 0.098, -1.277], [1.213, 0.127, -0.601], [1.125, 0.127, -0.086], [0.831, 0.076, 0.230],
])  # fmt: skip
# X, Y, Z from leads I, II, V1 .. V6
INVERSE_DOWER = np.array([
    [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194],
    [-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048],
    [0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108],
])  # fmt: skip


def rotation_of_leads(axis: np.ndarray, angle_rad: float) -> np.ndarray:
    """What turning the vectorcardiogram about a unit axis (3,) adds to the leads: (8, 8), Dower (R - 1) inverse Dower."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.sin(angle_rad) * cross + (1 - np.cos(angle_rad)) * cross @ cross  # R - 1, Rodrigues
    return DOWER @ turn @ INVERSE_DOWER


def small_turn_of_leads(plane: np.ndarray) -> np.ndarray:
    """The same for a small turn in a plane, to first order and for one radian: (8, 8). plane (3, 3): the generator of the turn."""
    return DOWER @ plane @ np.linalg.pinv(DOWER)
