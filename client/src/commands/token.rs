//! `belay token create`

use std::time::Duration;

use belay_proto::api::{MAX_TOKEN_LIFE_S, MAX_TOKEN_USES, TokenAnswer, TokenRequest, path};
use belay_proto::names::Label;
use clap::Subcommand;
use hyper::Method;

use super::labels_of;
use crate::api::Api;
use crate::failure::{EXIT_USAGE, Failure};
use crate::output;
use crate::run::Context;
use crate::span;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make an enrolment token. It is shown once
    #[command(
        after_help = "Example:\n  belay token create --name 'pump-*' --uses 40 --expires 7d --label site=oslo\n  then on each device: belay-agent enroll belay-token-…"
    )]
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// What the devices' names must look like; * stands for any characters, and without one it is
    /// the name itself
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// How many devices may enrol with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TOKEN_USES)))]
    uses: u32,
    /// How long it is good for, such as 90m, 24h or 7d
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = span::parse)]
    expires: Duration,
    /// A label the devices get; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<Label>,
}

/// Makes a token.
///
/// # Errors
/// When there is no live login, or the relay refuses.
pub async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let What::Create(create) = args.what;
    if create.expires.as_secs() > MAX_TOKEN_LIFE_S {
        let longest = span::rough(Duration::from_secs(MAX_TOKEN_LIFE_S));
        return Err(Failure::new("usage", format!("a token lives at most {longest}"))
            .remedy("give a shorter --expires")
            .exit(EXIT_USAGE));
    }
    let request = TokenRequest {
        lives_s: create.expires.as_secs(),
        uses: create.uses,
        name: create.name,
        labels: labels_of(create.label)?,
    };
    let api = Api::of_home(&context.home)?;
    let answer: TokenAnswer = api.send(Method::POST, path::TOKENS, &request).await?;
    if context.format == output::Format::Text && output::is_terminal() {
        output::note(format!("good until {}, shown once:", span::at(answer.expires)));
    }
    output::show(context.format, &answer, |answer| answer.token.clone())
}
