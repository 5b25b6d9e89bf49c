//! A terminal, and a program that runs in it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcgetpgrp, tcsetwinsize};

use crate::support::until_now;
use crate::tool::around;

pub const CTRL_C: &str = "\x03";
pub const CTRL_Z: &str = "\x1a";
pub const CTRL_D: &str = "\x04";

/// The terminal of a program that runs in a session of its own.
pub struct Terminal {
    pub keys: File,
    seen: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    pub fn start(program: &str, arguments: &[&str], address: &str) -> Self {
        Self::sized((80, 24), program, arguments, &[("DFLOCKD_SERVERS", address)])
    }

    /// Starts a program on a terminal of this size (columns and rows), with these environment variables.
    pub fn sized(size: (u16, u16), program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&end).unwrap();
        unlockpt(&end).unwrap();
        resize(&end, size);
        let name = ptsname(&end, Vec::new()).unwrap();
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(name.to_str().unwrap())
                .unwrap()
        };
        let child = around("setsid")
            .args(["--ctty", "--wait", program])
            .args(arguments)
            .env("PS1", "$ ")
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied())
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .unwrap();
        let keys = File::from(end);
        let mut screen = keys.try_clone().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                told.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { keys, seen, child }
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the terminal has shown this text. Returns the output up to there, and forgets it.
    pub fn shown(&self, text: &str) -> String {
        let mut before = None;
        until_now(&format!("{text:?} is shown"), || {
            let mut seen = self.seen.lock().unwrap();
            if let Some(at) = seen.find(text) {
                let rest = seen.split_off(at + text.len());
                before = Some(std::mem::replace(&mut *seen, rest));
            }
            before.is_some()
        });
        before.unwrap()
    }

    pub fn code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    /// Gives the terminal another size, of which the system informs the program.
    pub fn resize(&self, size: (u16, u16)) {
        resize(&self.keys, size);
    }

    /// Sends a signal to the program in the foreground.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.foreground(), signal).unwrap();
    }

    pub fn foreground(&self) -> Pid {
        tcgetpgrp(&self.keys).unwrap()
    }

    /// Returns whether the terminal echoes input and passes it on line by line, as it does for the commands of a
    /// shell.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.keys).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("last on the screen: {:?}", self.seen.lock().unwrap());
        }
    }
}

fn resize(terminal: impl AsFd, (columns, rows): (u16, u16)) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}
