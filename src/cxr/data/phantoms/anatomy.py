"""A synthetic person and the outlines of the chest in one exposure, in cm. Knows nothing of pixels or findings.

Sides are seen as on a film: side -1 is the patient's right (left of the image), +1 the patient's left. `u` is the
distance from the midline, so that x = side * u. The measures are those of adults (inner thorax about 27 cm wide, lungs
about 24 cm high); they make a plausible chest and are no anthropometric model.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr.data.phantoms.drawing import Points, band, disc, moved, smooth

_WALL_Y = (-14.0, -13.2, -12.0, -10.0, -7.0, -3.0, 1.0, 6.0, 10.0, 14.0)
_WALL_U = (3.2, 5.4, 7.3, 9.2, 11.1, 12.6, 13.4, 13.8, 13.7, 13.2)  # inner half width of the rib cage at these heights
SIDES = (-1, 1)


@dataclass(frozen=True)
class Person:
    """What stays the same between the studies of one person. Lengths in cm, scales relative to an average adult."""

    sex: str
    age: int
    width: float
    height: float
    depth: float
    wall: float
    breast: float
    bone: float
    rib_width: float
    rib_start: float
    heart: float
    aorta: float
    hilum: float
    domes: tuple[float, float]
    scoliosis: float
    stomach_gas: float
    vessel_seed: int


def draw_person(rng: np.random.Generator) -> Person:
    """Draw one adult."""
    sex = "F" if rng.random() < 0.45 else "M"
    age = int(np.clip(rng.normal(56, 17), 18, 92))
    size = 0.94 if sex == "F" else 1.03
    return Person(
        sex=sex,
        age=age,
        width=size * float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12)),
        height=size * float(np.clip(rng.normal(1.0, 0.055), 0.87, 1.13)),
        depth=size * float(rng.uniform(14.0, 18.0)),
        wall=float(rng.uniform(4.0, 8.5)),
        breast=float(rng.uniform(0.8, 3.2)) if sex == "F" else 0.0,
        bone=float(np.clip(rng.normal(1.15 - 0.004 * (age - 50), 0.12), 0.7, 1.5)),
        rib_width=float(rng.uniform(0.9, 1.15)),
        rib_start=float(rng.normal(0.0, 0.5)),
        heart=float(np.clip(rng.normal(1.0 + 0.002 * (age - 50), 0.09), 0.8, 1.35)),
        aorta=float(np.clip(rng.normal(1.0 + 0.005 * (age - 50), 0.1), 0.7, 1.4)),
        hilum=float(rng.uniform(0.8, 1.2)),
        domes=(float(rng.normal(0.0, 0.5)), float(rng.normal(0.0, 0.5))),
        scoliosis=float(rng.normal(0.0, 0.35)),
        stomach_gas=float(rng.uniform(0.5, 1.0)) if rng.random() < 0.65 else 0.0,
        vessel_seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Pose:
    """How the person stood in one exposure.

    Attributes:
        view: 'PA', 'AP' or 'LATERAL'.
        yaw: Sideways shift of the front of the chest against its back, in cm.
        breath: How far the domes lie below their usual place, in cm.
    """

    view: str
    yaw: float = 0.0
    breath: float = 0.0


@dataclass(frozen=True)
class Chest:
    """The outlines of one person in one frontal pose, all closed curves (N, 2) in cm unless stated."""

    person: Person
    pose: Pose

    @property
    def is_ap(self) -> bool:
        """Whether the exposure is anteroposterior: heart magnified, shoulder blades over the lungs."""
        return self.pose.view == "AP"

    def half_width(self, y: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Inner half width of the rib cage in cm at heights `y`."""
        heights = np.asarray(y, np.float64) / self.person.height
        return np.interp(heights, _WALL_Y, _WALL_U) * self.person.width

    def dome(self, side: int) -> float:
        """Height y in cm of the top of a diaphragm dome; the right one is higher."""
        return (7.2 if side < 0 else 8.2) * self.person.height + self.person.domes[side > 0] + self.pose.breath

    def lung(self, side: int) -> Points:
        """The lung in front of and above the dome; its inner edge lies behind the mediastinum."""
        high, dome = self.person.height, self.dome(side)
        wall_y = np.array([-12.4, -11.0, -9.0, -6.0, -2.0, 2.0, 5.5]) * high
        wall = np.stack([self.half_width(wall_y), wall_y], axis=1)
        angle = float(self.half_width(dome + 3.2)) - 0.15
        base = [(angle, dome + 3.1), (angle * 0.86, dome + 1.35), (angle * 0.7, dome + 0.35), (angle * 0.52, dome)]
        base += [(angle * 0.33, dome + 0.3), (angle * 0.2, dome + 0.9), (0.8, dome + 1.0)]
        top = [(0.8, -9.0 * high), (2.6, -12.2 * high), (4.3 * self.person.width, -13.4 * high)]
        points = np.vstack([top, wall, base])
        return smooth(points * (side, 1))

    def lung_back(self, side: int) -> Points:
        """The lung behind the heart and the dome, down to the posterior recess."""
        high, deep = self.person.height, self.dome(side) + 4.2
        wall_y = np.array([-11.0, -6.0, 0.0, 6.0]) * high
        wall = np.stack([self.half_width(wall_y), wall_y], axis=1)
        angle = float(self.half_width(deep)) - 0.3
        base = [(angle, deep - 0.6), (angle * 0.8, deep), (angle * 0.5, deep - 0.4), (2.2, deep - 1.4)]
        points = np.vstack([[(2.0, -11.0 * high), (4.3, -13.0 * high)], wall, base])
        return smooth(points * (side, 1))

    def heart(self) -> Points:
        """The heart with its apex to the patient's left, about half as wide as the thorax."""
        scale = self.person.heart * (1.12 if self.is_ap else 1.0)
        low = max(self.dome(-1), self.dome(1)) + 1.6
        right = [(-2.0, -3.4), (-3.2, -0.8), (-4.2, 1.8), (-4.4, 4.2), (-3.7, 6.6), (-2.0, 8.4)]
        left = [(2.0, 8.8), (6.0, 8.3), (8.0, 7.0), (8.5, 5.2), (8.0, 3.2), (6.7, 0.9), (5.0, -1.0), (3.6, -2.6)]
        points = np.array([*right, *left, (1.5, -4.0)]) * (scale * self.person.width, self.person.height)
        return smooth(moved(points, 0.8 * self.pose.yaw, low - float(points[:, 1].max())))

    def mediastinum(self) -> Points:
        """The great vessels and the upper mediastinum from the neck to the heart."""
        high, wide = self.person.height, 1.15 if self.is_ap else 1.0
        right = [(-2.4, -16.0), (-2.5, -12.0), (-2.5, -8.0), (-2.6, -5.0), (-2.9, -2.0), (-3.1, 1.5), (-2.4, 14.0)]
        left = [(2.4, 14.0), (3.0, 1.5), (3.5, -2.6), (3.0, -4.2), (2.6, -8.5), (2.6, -12.0), (2.4, -16.0)]
        return smooth(moved(np.array(right + left) * (wide, high), 0.4 * self.pose.yaw, 0.0))

    def great_vessels(self) -> list[Points]:
        """Aortic knob, descending aorta's edge and pulmonary trunk on the left border."""
        high, size = self.person.height, self.person.aorta
        knob = disc(1.75 + 0.35 * size, -5.9 * high, 1.6 * size, 1.9 * size)
        trunk = disc(2.35, -2.6 * high, 1.5, 2.4)
        return [moved(knob, 0.3 * self.pose.yaw, 0.0), moved(trunk, 0.5 * self.pose.yaw, 0.0)]

    def hilum(self, side: int) -> tuple[float, float]:
        """(x, y) in cm of a hilum; the left one is higher."""
        return side * 3.9 + 0.3 * self.pose.yaw, (-0.9 if side < 0 else -2.0) * self.person.height

    def trachea(self) -> list[tuple[Points, npt.NDArray[np.float64]]]:
        """(path, widths) of the trachea and the two main bronchi."""
        high, shift = self.person.height, 0.2 * self.pose.yaw
        trunk = [(0.0, -19.0), (-0.05, -14.0), (-0.3, -9.0), (-0.2, -4.6)], 1.5, 1.7
        right = [(-0.4, -5.0), (-1.8, -3.4), (-3.4, -1.4)], 1.2, 0.9
        left = [(0.0, -5.0), (2.0, -3.6), (4.0, -2.6)], 1.1, 0.7
        tubes = []
        for points, first, last in (trunk, right, left):
            path = smooth(moved(np.array(points) * (1, high), shift, 0.0), closed=False)
            tubes.append((path, np.linspace(first, last, len(path))))
        return tubes

    def body(self) -> list[Points]:
        """Trunk with shoulders and neck, then the upper arms."""
        wide = self.person.width * (13.8 + 0.42 * self.person.wall)
        rise = 1.3 if self.is_ap else 0.0
        side = [(4.2, -27), (4.6, -19.5), (6.2, -17.9), (10.0, -17.2 - rise * 0.5), (15.0, -16.4 - rise)]
        side += [(18.5, -14.6 - rise), (19.5, -11.0), (wide + 1.5, -4.5), (wide + 0.9, 0.0), (wide + 0.4, 5.0)]
        side += [(wide + 0.2, 11.0), (wide + 0.3, 17.0), (wide + 0.4, 26.0)]
        half = np.array(side)
        arms = [band(self.upper_arm(side), 7.6) for side in SIDES]
        return [smooth(np.vstack([half, half[::-1] * (-1, 1)])), *arms]

    def upper_arm(self, side: int) -> Points:
        """Axis of an upper arm: hanging beside the trunk in AP, held away from it in PA."""
        x = (18.2 if self.is_ap else 18.0) * self.person.width
        away = 3.5 if self.is_ap else 7.5
        reach = np.array([-0.7 / away, 0.25, 1.0, 1.6, 2.0]) * away
        path = np.stack([x + reach, [-13.2, -8.0, 4.0, 16.0, 28.0]], axis=1)
        return smooth(path * (side, 1), closed=False)

    def breasts(self) -> list[Points]:
        """Breast shadows; empty for men."""
        if self.person.breast == 0:
            return []
        x, y, radius = 8.4 * self.person.width, 2.6 + 0.5 * self.person.breast, 4.9 + 0.5 * self.person.breast
        return [disc(side * x, y, radius, radius * 1.05) for side in SIDES]

    def stomach(self) -> Points:
        """The gas bubble under the left dome."""
        bubble = np.array([(-2.6, 0.6), (-1.9, -0.7), (0.2, -1.25), (2.3, -0.8), (3.0, 0.4), (0.2, 0.75)])
        return smooth(moved(bubble * self.person.stomach_gas, 6.0, self.dome(1) + 2.3))
