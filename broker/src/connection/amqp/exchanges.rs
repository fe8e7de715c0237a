//! Class exchange.

use leveret_protocol::amqp::FieldTable;
use leveret_protocol::amqp::exchange::{self, Exchange as ExchangeMethod};
use leveret_protocol::{Destination, ExchangeName, ReplyCode, RoutingKey};

use super::super::Violation;
use super::session::{AmqpSession, unimplemented};
use crate::topology::{BindingDefinition, DeclareExchange};

impl AmqpSession {
    /// Methods of class exchange.
    pub(super) fn on_exchange(&mut self, number: u16, method: &ExchangeMethod<'_>) -> Result<(), Violation> {
        match method {
            ExchangeMethod::Declare(declare) => self.declare_exchange(number, declare),
            ExchangeMethod::Delete(delete) => self.delete_exchange(number, *delete),
            ExchangeMethod::Bind(bind) => self.bind_exchange(number, bind),
            ExchangeMethod::Unbind(unbind) => self.unbind_exchange(number, unbind),
            _ => Err(unimplemented()),
        }
    }

    fn declare_exchange(&mut self, number: u16, declare: &exchange::Declare<'_>) -> Result<(), Violation> {
        let exchange::Declare { kind, passive, durable, auto_delete, internal, nowait, arguments, .. } =
            *declare;
        let name = ExchangeName::new(declare.exchange)?;
        let declared = if passive {
            self.common.vhost.check_exchange(&name).map(|()| None)
        } else {
            DeclareExchange::new(name, kind, durable, auto_delete, internal, &arguments.to_table())
                .and_then(|asked| self.common.vhost.declare_exchange(asked))
                .map(Some)
        };
        let position = declared.map_err(|error| self.misplaced(&error))?;
        if !nowait {
            self.common.outbox.send(number, exchange::DeclareOk {}, position);
        }
        Ok(())
    }

    fn delete_exchange(&mut self, number: u16, delete: exchange::Delete<'_>) -> Result<(), Violation> {
        let name = ExchangeName::new(delete.exchange)?;
        let deleted = self.common.vhost.delete_exchange(&name, delete.if_unused);
        let position = deleted.map_err(|error| self.misplaced(&error))?;
        if !delete.nowait {
            self.common.outbox.send(number, exchange::DeleteOk {}, Some(position));
        }
        Ok(())
    }

    fn bind_exchange(&mut self, number: u16, bind: &exchange::Bind<'_>) -> Result<(), Violation> {
        let exchange::Bind { destination, source, routing_key, nowait, arguments } = *bind;
        let binding = self.exchange_binding(source, destination, routing_key, arguments)?;
        let bound = self.common.vhost.bind(&binding, self.common.id);
        let position = bound.map_err(|error| self.misplaced(&error))?;
        if !nowait {
            self.common.outbox.send(number, exchange::BindOk {}, Some(position));
        }
        Ok(())
    }

    fn unbind_exchange(&mut self, number: u16, unbind: &exchange::Unbind<'_>) -> Result<(), Violation> {
        let exchange::Unbind { destination, source, routing_key, nowait, arguments } = *unbind;
        let binding = self.exchange_binding(source, destination, routing_key, arguments)?;
        let position = match self.common.vhost.unbind(&binding, self.common.id) {
            Ok(position) => position,
            // What leads nowhere or comes from nowhere is not bound.
            Err(error) if error.code() == ReplyCode::NotFound => self.common.context.store.end(),
            Err(error) => return Err(self.misplaced(&error)),
        };
        if !nowait {
            self.common.outbox.send(number, exchange::UnbindOk {}, Some(position));
        }
        Ok(())
    }

    fn exchange_binding(
        &self,
        source: &str,
        destination: &str,
        routing_key: &str,
        arguments: FieldTable<'_>,
    ) -> Result<BindingDefinition, Violation> {
        Ok(BindingDefinition {
            vhost: self.common.vhost.name.clone(),
            source: ExchangeName::new(source)?,
            destination: Destination::Exchange(ExchangeName::new(destination)?),
            routing_key: RoutingKey::new(routing_key)?,
            arguments: arguments.to_table(),
        })
    }
}
