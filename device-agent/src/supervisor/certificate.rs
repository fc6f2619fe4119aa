//! Keeping what the relay issues to a device that has a line: a renewed certificate, a new name.

use belay_proto::time::UnixTime;
use belay_proto::wire::control::{Renamed, Renewed};
use belay_tunnel::pki::{PeerCertificate, TlsKey};

use super::Agent;

/// Keeps a renewed certificate, when it is for this very device and key. Says until when it lives.
pub(super) fn keep(agent: &Agent, key: &TlsKey, renewed: &Renewed) -> anyhow::Result<UnixTime> {
    let certificate = PeerCertificate::from_der(&renewed.certificate)?;
    let request = key.request_der()?;
    anyhow::ensure!(
        renewed.device == agent.enrolment.device
            && certificate.identity == belay_tunnel::pki::Identity::Device(agent.enrolment.device)
            && certificate.key_digest == belay_tunnel::pki::requested_key_digest(&request)?,
        "it is for another device or key"
    );
    let pem = belay_tunnel::pki::certificate_to_pem(&renewed.certificate);
    agent.state.set_certificate(&pem)?;
    if let Some(line) = &renewed.ssh_host_certificate {
        agent.state.set_host_certificate(line)?;
    }
    Ok(certificate.not_after)
}

/// Keeps a new name.
pub(super) fn take_name(agent: &Agent, renamed: &Renamed) {
    let kept = agent.state.set_host_certificate(&renamed.ssh_host_certificate).and_then(|()| {
        let enrolment = agent.state.enrolment()?;
        agent
            .state
            .set_enrolment(&crate::state::Enrolment { name: renamed.name.clone(), ..enrolment })
    });
    match kept {
        Ok(()) => tracing::info!(name = %renamed.name, "this device has another name now"),
        Err(error) => tracing::error!(%error, "cannot keep this device's new name"),
    }
}
