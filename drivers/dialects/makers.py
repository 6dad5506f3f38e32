"""Under which names makers' instruments answer `*IDN?`, by family, and where each name was seen: in
a manual, by its page, or in a reply that a public program keeps.

Unverified: any name of a ThermoStream of inTEST (ATS systems), and "Keysight Technologies" of a
33500A, which was sold as Agilent's.
"""

_INC, _PLAIN = "KEITHLEY INSTRUMENTS INC.", "KEITHLEY INSTRUMENTS"
_AGILENT, _KEYSIGHT = "Agilent Technologies", "Keysight Technologies"
_LIKE_OTHERS = "not seen of this family; the maker's newer ones answer so"
SERIES_2400 = {_INC: "Series 2400 User's Manual, 16-3", _PLAIN: _LIKE_OTHERS}
SERIES_2450 = {
    _INC: "Model 2450 Reference Manual 2450-901-01 Rev. B, B-5",
    _PLAIN: "Model 2470 Reference Manual 2470-901-01 Rev. A, A-5; replies of 2450 and 2460",
}
SERIES_2600 = {
    _INC: "Series 2600B Reference Manual 2600BS-901-01 Rev. B, D-3",
    _PLAIN: "Series 2600B Reference Manual 2600BS-901-01 Rev. F, 11-3",
}
SERIES_3700 = {_INC: "a reply of a 3706A", _PLAIN: _LIKE_OTHERS}
SERIES_700 = {
    _INC: "TSP toolkit, command documentation 70xB, tspnet.idn",
    _PLAIN: _LIKE_OTHERS,
}
B1500 = dict.fromkeys((_AGILENT, _KEYSIGHT), "replies of a B1500A")
B2900 = {_AGILENT: "replies of a B2901A", _KEYSIGHT: "replies of B2901A, B2902A, B2902B"}
SERIES_33500 = {
    _AGILENT: "replies of 33510B, 33522A, 33622A",
    _KEYSIGHT: "replies of 33522B, 33622A",
}
INFINIIVISION = {
    _AGILENT: "a reply of an MSO-X 3014A",
    _KEYSIGHT: "a reply of a DSO-X 1102G, of the series below",
}
LAKE_SHORE = {"LSCI": "Model 335 User's Manual, 6-108; Model 325 User's Manual, 6-23"}
TEMPTRONIC = {"TEMPTRONIC": "TP04300 Series Interface & Applications Manual, C-1"}
