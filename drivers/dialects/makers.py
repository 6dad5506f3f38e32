"""Under which names makers' instruments answer `*IDN?`, and where each name was seen: in a manual,
by its page, or in a reply that a public program keeps.

Unverified: any name of a ThermoStream of inTEST (ATS systems), and "Keysight Technologies" of a
33500A, which was sold as Agilent's.
"""

KEITHLEY = {
    "KEITHLEY INSTRUMENTS INC.": (
        "Series 2400 User's Manual, 16-3; Model 2450 Reference Manual 2450-901-01 Rev. B, B-5;"
        " Series 2600B Reference Manual 2600BS-901-01 Rev. B, D-3; 707B: TSP toolkit, command"
        " documentation 70xB, tspnet.idn; 3706A: a reply in a public program"
    ),
    "KEITHLEY INSTRUMENTS": (
        "Model 2470 Reference Manual 2470-901-01 Rev. A, A-5; Series 2600B Reference Manual"
        " 2600BS-901-01 Rev. F, 11-3; 2450 and 2460: replies in public programs"
    ),
}
KEYSIGHT = {
    "Agilent Technologies": "replies of B1500A, B2901A, 33510B, 33522A, 33622A in public programs",
    "Keysight Technologies": "replies of B1500A, B2901A, B2902B, 33522B, 33622A in public programs",
}
LAKE_SHORE = {"LSCI": "Model 335 User's Manual, 6-108; Model 325 User's Manual, 6-23"}
TEMPTRONIC = {"TEMPTRONIC": "TP04300 Series Interface & Applications Manual, C-1"}
