//! Terminal modes of `pty-req` (RFC 4254, section 8) as termios.
//!
//! Opcodes Linux has no name for are skipped, as the RFC asks of those one does
//! not know.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    tcgetattr, tcsetattr,
};

/// RFC 4254: 255 disables a control character.
const DISABLED: u32 = 255;
/// `_POSIX_VDISABLE` of Linux.
const VDISABLE: u8 = 0;

pub(super) fn apply(terminal: impl AsFd, modes: &[(u8, u32)]) -> io::Result<()> {
    let mut termios = tcgetattr(&terminal)?;
    for (opcode, value) in modes {
        set(&mut termios, *opcode, *value);
    }
    Ok(tcsetattr(&terminal, OptionalActions::Now, &termios)?)
}

fn set(termios: &mut Termios, opcode: u8, value: u32) {
    let on = value != 0;
    if let Some(index) = control_character(opcode) {
        termios.special_codes[index] = match value {
            DISABLED => VDISABLE,
            character => u8::try_from(character).unwrap_or(VDISABLE),
        };
    } else if let Some(flag) = input(opcode) {
        termios.input_modes.set(flag, on);
    } else if let Some(flag) = local(opcode) {
        termios.local_modes.set(flag, on);
    } else if let Some(flag) = output(opcode) {
        termios.output_modes.set(flag, on);
    } else if let Some(flag) = control(opcode) {
        // CS7 and CS8 are values of one field, not flags.
        if matches!(opcode, 90 | 91) {
            if on {
                termios.control_modes.remove(ControlModes::CSIZE);
                termios.control_modes.insert(flag);
            }
        } else {
            termios.control_modes.set(flag, on);
        }
    } else if let (128 | 129, 1..) = (opcode, value) {
        // A pseudo-terminal has no line; a program may still ask for its speed.
        let result = if opcode == 128 {
            termios.set_input_speed(value)
        } else {
            termios.set_output_speed(value)
        };
        if let Err(error) = result {
            tracing::debug!(value, %error, "a line speed the system does not know");
        }
    }
}

fn control_character(opcode: u8) -> Option<SpecialCodeIndex> {
    Some(match opcode {
        1 => SpecialCodeIndex::VINTR,
        2 => SpecialCodeIndex::VQUIT,
        3 => SpecialCodeIndex::VERASE,
        4 => SpecialCodeIndex::VKILL,
        5 => SpecialCodeIndex::VEOF,
        6 => SpecialCodeIndex::VEOL,
        7 => SpecialCodeIndex::VEOL2,
        8 => SpecialCodeIndex::VSTART,
        9 => SpecialCodeIndex::VSTOP,
        10 => SpecialCodeIndex::VSUSP,
        12 => SpecialCodeIndex::VREPRINT,
        13 => SpecialCodeIndex::VWERASE,
        14 => SpecialCodeIndex::VLNEXT,
        16 => SpecialCodeIndex::VSWTC,
        18 => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(opcode: u8) -> Option<InputModes> {
    Some(match opcode {
        30 => InputModes::IGNPAR,
        31 => InputModes::PARMRK,
        32 => InputModes::INPCK,
        33 => InputModes::ISTRIP,
        34 => InputModes::INLCR,
        35 => InputModes::IGNCR,
        36 => InputModes::ICRNL,
        37 => InputModes::IUCLC,
        38 => InputModes::IXON,
        39 => InputModes::IXANY,
        40 => InputModes::IXOFF,
        41 => InputModes::IMAXBEL,
        // RFC 8160.
        42 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local(opcode: u8) -> Option<LocalModes> {
    Some(match opcode {
        50 => LocalModes::ISIG,
        51 => LocalModes::ICANON,
        52 => LocalModes::XCASE,
        53 => LocalModes::ECHO,
        54 => LocalModes::ECHOE,
        55 => LocalModes::ECHOK,
        56 => LocalModes::ECHONL,
        57 => LocalModes::NOFLSH,
        58 => LocalModes::TOSTOP,
        59 => LocalModes::IEXTEN,
        60 => LocalModes::ECHOCTL,
        61 => LocalModes::ECHOKE,
        62 => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output(opcode: u8) -> Option<OutputModes> {
    Some(match opcode {
        70 => OutputModes::OPOST,
        71 => OutputModes::OLCUC,
        72 => OutputModes::ONLCR,
        73 => OutputModes::OCRNL,
        74 => OutputModes::ONOCR,
        75 => OutputModes::ONLRET,
        _ => return None,
    })
}

fn control(opcode: u8) -> Option<ControlModes> {
    Some(match opcode {
        90 => ControlModes::CS7,
        91 => ControlModes::CS8,
        92 => ControlModes::PARENB,
        93 => ControlModes::PARODD,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn terminal() -> std::os::fd::OwnedFd {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        master
    }

    #[test]
    fn modes_reach_the_terminal() {
        let master = terminal();
        apply(
            &master,
            &[
                (1, 7),
                (3, 8),
                (5, DISABLED),
                (53, 0),
                (51, 1),
                (72, 0),
                (91, 1),
                (36, 0),
                (129, 9600),
            ],
        )
        .unwrap();
        let read = tcgetattr(&master).unwrap();
        assert_eq!(read.special_codes[SpecialCodeIndex::VINTR], 7);
        assert_eq!(read.special_codes[SpecialCodeIndex::VERASE], 8);
        assert_eq!(read.special_codes[SpecialCodeIndex::VEOF], VDISABLE);
        assert!(!read.local_modes.contains(LocalModes::ECHO));
        assert!(read.local_modes.contains(LocalModes::ICANON));
        assert!(!read.output_modes.contains(OutputModes::ONLCR));
        assert!(!read.input_modes.contains(InputModes::ICRNL));
        assert_eq!(read.control_modes & ControlModes::CSIZE, ControlModes::CS8);
        assert_eq!(read.output_speed(), 9600);
    }

    #[test]
    fn every_opcode_and_any_value_is_survived() {
        let master = terminal();
        for value in [0, 1, 255, 256, u32::MAX] {
            let all: Vec<_> = (0..=255).map(|opcode| (opcode, value)).collect();
            apply(&master, &all).unwrap();
        }
    }
}
