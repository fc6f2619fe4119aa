//! `lab-bench`: the benchmark behind `tests/bench`. The table goes to standard output.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use belay_tests::bench::plan::{self, Part, Plan};
use clap::Parser;

/// Measures Belay beside OpenSSH's reverse tunnel and prints one table.
#[derive(Parser)]
struct Args {
    /// Everything once and small, to show that it can be measured; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Only this part; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The agent as it is shipped, for its size.
    #[arg(long)]
    shipped_agent: Option<PathBuf>,
}

fn main() -> Result<()> {
    belay_tunnel::tls::install_provider();
    let args = Args::parse();
    if let Err(why) = belay_tests::lab::available() {
        bail!("the benchmark needs the network lab: {why}");
    }
    let mut plan = if args.quick { Plan::quick() } else { Plan::full() };
    plan.only = args.only;
    plan.shipped_agent = args.shipped_agent;
    let began = Instant::now();
    let mut say = |doing: &str| eprintln!("{:5.0} s  {doing}", began.elapsed().as_secs_f64());
    let (machine, table) = plan::run(&plan, &mut say)?;
    println!("{machine}seconds: {:.0}\n\n{table}", began.elapsed().as_secs_f64());
    let (goals, reached) = table.tally();
    if args.quick {
        println!("{goals} targets; a quick run says nothing about them");
    } else {
        println!("{reached} of {goals} targets reached");
    }
    Ok(())
}
